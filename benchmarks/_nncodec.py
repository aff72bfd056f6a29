"""DeepCABAC by Fraunhofer's `nncodec`, run by the Python of its own environment, which this file must not go beyond.

    python _nncodec.py codes.npz        one JSON line: bytes, and seconds of encoding and decoding

Only what codes weights is called, without the headers of a bit stream; rows of zeros are skipped as its own tool does.
"""

import json
import sys
from time import process_time

import numpy as np
from nncodec.extensions import deepCABAC
from nncodec.nnc_core.hdsp.hdsp_tool import HDSP_OPTS_OFF

UNARY = 11
"""Its default for the length of unary codes, plus 1."""
DECODINGS = 3
"""The fastest counts, as it does for the codecs."""


def encode(codes):
    coder = deepCABAC.Encoder()
    coder.initCtxModels(UNARY, 1)
    skipped = np.array([not row.any() for row in codes], np.int32)
    coder.encodeLayer(codes, 0, 0, 1, 0, 1, skipped, *HDSP_OPTS_OFF(), 0, 0)
    return coder.finish().tobytes()


def decode(data, shape):
    coder = deepCABAC.Decoder()
    coder.setStream(np.frombuffer(data, np.uint8))
    coder.initCtxModels(UNARY)
    codes = np.zeros(shape, np.int32)
    coder.decodeLayer(codes, 0, 0, 1, 0, *HDSP_OPTS_OFF(), 0, 0)
    return codes


def main():
    size, times = 0, [0.0, 0.0]
    with np.load(sys.argv[1]) as file:
        for name in file.files:
            codes = np.ascontiguousarray(file[name].astype(np.int32))
            start = process_time()
            data = encode(codes)
            times[0] += process_time() - start
            seconds = []
            for _ in range(DECODINGS):
                start = process_time()
                decoded = decode(data, codes.shape)
                seconds.append(process_time() - start)
            times[1] += min(seconds)
            assert np.array_equal(decoded, codes), name
            size += len(data)
    print(json.dumps({"bytes": size, "encode": times[0], "decode": times[1]}))


main()
