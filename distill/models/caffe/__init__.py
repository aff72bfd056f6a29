"""Networks that were trained in Caffe: read from their two files, and rebuilt from plain data."""

from distill.models.caffe.network import CaffeNet, caffe
from distill.models.caffe.read import read

__all__ = ["CaffeNet", "caffe", "read"]
