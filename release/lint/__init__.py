"""``release lint``: what is wrong with a model folder, found before strangers find it.

Works on any folder, a release of ours or somebody's own, from headers and small files alone; what
it reads may be hostile, so every read is bounded and nothing of the folder is executed.
"""
