"""Encoders as LiteRT files for phones: int8 weights, fixed lengths, adapters and the head as inputs.

LiteRT's converter pins older versions of packages that trunkline needs, so it lives in an environment of its own;
`export.export_litert` runs it there. The modules `layout`, `module`, `convert`, `session` and `worker` run in that
environment too and import nothing of trunkline but each other and its errors.
"""
