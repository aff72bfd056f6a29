"""Messages of Caffe's files by field number, for protobuf: networks, layers old and new, blobs, settings of layers.

Jia et al.: Caffe: Convolutional Architecture for Fast Feature Embedding. arXiv:1408.5093; for `PriorBox`,
`DetectionOutput`, `Normalize` and `Permute`, Liu et al.: SSD: Single Shot MultiBox Detector. arXiv:1512.02325.

Text is parsed strictly: a setting that is not listed here could change what a layer computes, and is refused by name.
Settings that only matter to training are listed and ignored.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PACKAGE = "distill.caffe"

ENUMS: dict[str, str] = {
    "Phase": "TRAIN 0, TEST 1",
    "Pool": "MAX 0, AVE 1, STOCHASTIC 2",
    "Round": "CEIL 0, FLOOR 1",
    "Eltwise": "PROD 0, SUM 1, MAX 2",
    "Region": "ACROSS_CHANNELS 0, WITHIN_CHANNEL 1",
    "Code": "CORNER 1, CENTER_SIZE 2, CORNER_SIZE 3",
    "Engine": "DEFAULT 0, CAFFE 1, CUDNN 2",
    "Dims": "STRICT 0, PERMISSIVE 1",
    "Variance": "FAN_IN 0, FAN_OUT 1, AVERAGE 2",
    "Storage": "DOUBLE 0, FLOAT 1, FLOAT16 2, INT 3, UINT 4",
    "V1Type": "NONE 0, ACCURACY 1, BNLL 2, CONCAT 3, CONVOLUTION 4, DATA 5, DROPOUT 6, EUCLIDEAN_LOSS 7, FLATTEN 8, "
    "HDF5_DATA 9, HDF5_OUTPUT 10, IM2COL 11, IMAGE_DATA 12, INFOGAIN_LOSS 13, INNER_PRODUCT 14, LRN 15, "
    "MULTINOMIAL_LOGISTIC_LOSS 16, POOLING 17, RELU 18, SIGMOID 19, SOFTMAX 20, SOFTMAX_LOSS 21, SPLIT 22, TANH 23, "
    "WINDOW_DATA 24, ELTWISE 25, POWER 26, SIGMOID_CROSS_ENTROPY_LOSS 27, HINGE_LOSS 28, MEMORY_DATA 29, ARGMAX 30, "
    "THRESHOLD 31, DUMMY_DATA 32, SLICE 33, MVN 34, ABSVAL 35, SILENCE 36, CONTRASTIVE_LOSS 37, EXP 38, "
    "DECONVOLUTION 39",
}
"""Name and number of each value, as text files write them."""

SPATIAL = "pad_h 9 uint32, pad_w 10 uint32"
MESSAGES: dict[str, str] = {
    "Shape": "dim 1 int64 packed",
    "Blob": "num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float packed, diff 6 float packed, "
    "shape 7 Shape, double_data 8 double packed, double_diff 9 double packed, raw_data_type 10 Storage, "
    "raw_data 12 bytes",
    "Filler": "type 1 string, value 2 float, min 3 float, max 4 float, mean 5 float, std 6 float, sparse 7 int32, "
    "variance_norm 8 Variance",
    "Parameter": "name 1 string, share_mode 2 Dims, lr_mult 3 float, decay_mult 4 float",
    "State": "phase 1 Phase, level 2 int32, stage 3 string repeated",
    "Rule": "phase 1 Phase, min_level 2 int32, max_level 3 int32, stage 4 string repeated, not_stage 5 string repeated",
    "BatchNorm": "use_global_stats 1 bool, moving_average_fraction 2 float, eps 3 float =1e-5",
    "Concat": "concat_dim 1 uint32 =1, axis 2 int32 =1",
    "Convolution": "num_output 1 uint32, bias_term 2 bool =true, pad 3 uint32 repeated, kernel_size 4 uint32 repeated, "
    "group 5 uint32 =1, stride 6 uint32 repeated, weight_filler 7 Filler, bias_filler 8 Filler, "
    f"{SPATIAL}, kernel_h 11 uint32, kernel_w 12 uint32, stride_h 13 uint32, stride_w 14 uint32, engine 15 Engine, "
    "axis 16 int32 =1, force_nd_im2col 17 bool, dilation 18 uint32 repeated",
    "Crop": "axis 1 int32 =2, offset 2 uint32 repeated",
    "Dropout": "dropout_ratio 1 float =0.5",
    "EltwiseSettings": "operation 1 Eltwise =SUM, coeff 2 float repeated, stable_prod_grad 3 bool",
    "ELU": "alpha 1 float =1",
    "Flatten": "axis 1 int32 =1, end_axis 2 int32 =-1",
    "InnerProduct": "num_output 1 uint32, bias_term 2 bool =true, weight_filler 3 Filler, bias_filler 4 Filler, "
    "axis 5 int32 =1, transpose 6 bool",
    "Input": "shape 1 Shape repeated",
    "LRN": "local_size 1 uint32 =5, alpha 2 float =1, beta 3 float =0.75, norm_region 4 Region, k 5 float =1, "
    "engine 6 Engine",
    "Pooling": "pool 1 Pool, kernel_size 2 uint32, stride 3 uint32 =1, pad 4 uint32, kernel_h 5 uint32, "
    f"kernel_w 6 uint32, stride_h 7 uint32, stride_w 8 uint32, {SPATIAL}, engine 11 Engine, global_pooling 12 bool, "
    "round_mode 13 Round, ceil_mode 14 bool =true",
    "Power": "power 1 float =1, scale 2 float =1, shift 3 float",
    "PReLU": "filler 1 Filler, channel_shared 2 bool",
    "ReLU": "negative_slope 1 float, engine 2 Engine",
    "Reshape": "shape 1 Shape, axis 2 int32, num_axes 3 int32 =-1",
    "Scale": "axis 1 int32 =1, num_axes 2 int32 =1, filler 3 Filler, bias_term 4 bool, bias_filler 5 Filler",
    "Activation": "engine 1 Engine",
    "Slice": "slice_dim 1 uint32 =1, slice_point 2 uint32 repeated, axis 3 int32 =1",
    "Softmax": "engine 1 Engine, axis 2 int32 =1",
    "Suppression": "nms_threshold 1 float =0.3, top_k 2 int32 =-1, eta 3 float =1",
    "DetectionOutput": "num_classes 1 uint32, share_location 2 bool =true, background_label_id 3 int32, "
    "nms_param 4 Suppression, code_type 6 Code =CORNER, keep_top_k 7 int32 =-1, "
    "variance_encoded_in_target 8 bool, confidence_threshold 9 float",
    "Permute": "order 1 uint32 repeated",
    "Normalize": "across_spatial 1 bool =true, scale_filler 2 Filler, channel_shared 3 bool =true, eps 4 float =1e-10",
    "PriorBox": "min_size 1 float repeated, max_size 2 float repeated, aspect_ratio 3 float repeated, "
    "flip 4 bool =true, clip 5 bool, variance 6 float repeated, img_size 7 uint32, img_h 8 uint32, img_w 9 uint32, "
    "step 10 float, step_h 11 float, step_w 12 float, offset 13 float =0.5",
    "Layer": "name 1 string, type 2 string, bottom 3 string repeated, top 4 string repeated, "
    "loss_weight 5 float repeated, param 6 Parameter repeated, blobs 7 Blob repeated, include 8 Rule repeated, "
    "exclude 9 Rule repeated, phase 10 Phase, propagate_down 11 bool repeated, concat_param 104 Concat, "
    "convolution_param 106 Convolution, dropout_param 108 Dropout, eltwise_param 110 EltwiseSettings, "
    "inner_product_param 117 InnerProduct, lrn_param 118 LRN, pooling_param 121 Pooling, power_param 122 Power, "
    "relu_param 123 ReLU, sigmoid_param 124 Activation, softmax_param 125 Softmax, slice_param 126 Slice, "
    "tanh_param 127 Activation, prelu_param 131 PReLU, reshape_param 133 Reshape, flatten_param 135 Flatten, "
    "batch_norm_param 139 BatchNorm, elu_param 140 ELU, scale_param 142 Scale, input_param 143 Input, "
    "crop_param 144 Crop, detection_output_param 147 DetectionOutput, permute_param 148 Permute, "
    "norm_param 149 Normalize, prior_box_param 150 PriorBox",
    "V0Layer": "name 1 string, type 2 string, blobs 50 Blob repeated",
    "V1Layer": "layer 1 V0Layer, bottom 2 string repeated, top 3 string repeated, name 4 string, type 5 V1Type, "
    "blobs 6 Blob repeated, blobs_lr 7 float repeated, weight_decay 8 float repeated, concat_param 9 Concat, "
    "convolution_param 10 Convolution, dropout_param 12 Dropout, inner_product_param 17 InnerProduct, "
    "lrn_param 18 LRN, pooling_param 19 Pooling, power_param 21 Power, eltwise_param 24 EltwiseSettings, "
    "relu_param 30 ReLU, slice_param 31 Slice, include 32 Rule repeated, exclude 33 Rule repeated, "
    "loss_weight 35 float repeated, tanh_param 37 Activation, sigmoid_param 38 Activation, softmax_param 39 Softmax, "
    "param 1001 string repeated, blob_share_mode 1002 Dims repeated",
    "Net": "name 1 string, layers 2 V1Layer repeated, input 3 string repeated, input_dim 4 int32 repeated, "
    "force_backward 5 bool, state 6 State, debug_info 7 bool, input_shape 8 Shape repeated, layer 100 Layer repeated",
}
"""Name, number and type of each field; whether it repeats (``packed``: as one block); its default."""

V1_TYPES = {
    "ABSVAL": "AbsVal",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "ELTWISE": "Eltwise",
    "FLATTEN": "Flatten",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPLIT": "Split",
    "TANH": "TanH",
}
"""Old layer types, by the names of today's."""


def _field(text: str) -> descriptor_pb2.FieldDescriptorProto:
    name, number, kind, *rest = text.split()
    field = descriptor_pb2.FieldDescriptorProto(name=name, number=int(number))
    repeated = "repeated" in rest or "packed" in rest
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind in MESSAGES or kind in ENUMS:
        field.type = field.TYPE_MESSAGE if kind in MESSAGES else field.TYPE_ENUM
        field.type_name = f".{PACKAGE}.{kind}" if kind in MESSAGES else f".{PACKAGE}.{kind}Scope.{kind}"
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if "packed" in rest:
        field.options.packed = True
    if rest and rest[-1].startswith("="):
        field.default_value = rest[-1].removeprefix("=")
    return field


def _messages() -> dict[str, type[Message]]:
    # proto2, which is the default: fields know whether a file sets them, and have defaults.
    file = descriptor_pb2.FileDescriptorProto(name="distill_caffe.proto", package=PACKAGE)
    for name, values in ENUMS.items():
        # A message of its own around each: values of one scope may not be called alike.
        enum = file.message_type.add(name=f"{name}Scope").enum_type.add(name=name)
        for value in values.split(", "):
            label, number = value.split()
            enum.value.add(name=label, number=int(number))
    for name, fields in MESSAGES.items():
        file.message_type.add(name=name).field.extend(_field(field) for field in fields.split(", "))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in MESSAGES)
    return dict(zip(MESSAGES, map(message_factory.GetMessageClass, found), strict=True))


_BY_NAME = _messages()


def network() -> Any:
    """An empty message of a whole network."""
    return _BY_NAME["Net"]()
