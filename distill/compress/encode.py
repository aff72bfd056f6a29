"""Han, Mao & Dally: Deep Compression. arXiv:1510.00149, section 4, with any codec in place of Huffman's.

The last hook: integer codes in as few bits as their frequencies allow, everything else as one compressed block.
"""

from dataclasses import replace
from typing import Annotated

from distill.artifact import Artifact, store
from distill.artifact.sparse import Pruned
from distill.artifact.storage import Encoded
from distill.compress import hook
from distill.compress._layers import refuse_encoded
from distill.errors import RecipeError
from distill.registry.ranges import Stages


@hook("encode")
def encode(artifact: Artifact, *, codec: Annotated[str | list[str], Stages()] = "context") -> Artifact:
    """Entropy-code whatever is stored as integer codes; masks and all other tensors become one compressed block.
    Lossless: the network computes exactly what it did.

    Args:
        artifact: what to compress.
        codec: a name of `distill.codecs`, or the stages of a chain: ``[delta, bitmap, ans]``, perhaps with settings:
            ``[csc(index_bits=8), huffman]``. ``auto`` takes for each tensor what is shortest.

    Raises:
        RecipeError: nothing is stored in a compact form, or there is no such codec or setting.
    """
    refuse_encoded(artifact, "encode")
    # What is coded is trained no more: its zeros need no mask.
    forms = {name: form.inner if isinstance(form, Pruned) else form for name, form in artifact.stored.items()}
    stages = codec if isinstance(codec, str) else " ".join(codec)
    coded = {name: Encoded.of(form, stages) for name, form in forms.items() if hasattr(form, "codes")}
    if not forms:
        raise RecipeError("encode codes integers: put 'quantize' before it in compress")
    return replace(store(artifact, coded), encoded=True)
