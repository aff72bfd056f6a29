"""python train.py recipe=NAME key.path=value ...: everything from a data set to a small network that ships."""

import sys

from distill.cli.train import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
