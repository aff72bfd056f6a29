"""The commands of ``python -m distill``, one file each, found by name: ``import_caffe.py`` is ``import-caffe``.

The first line of a file's docstring is its help text. ``add_arguments(parser)`` says what it takes, ``run(options)``
does it. What needs torch is imported inside ``run``, so that ``--help`` and mistakes cost no seconds.
"""
