"""The model in the box, from texts of free licences: sources, questions, training, in the open.

python -m mini sources --out corpus                    # minutes, from packages of pinned versions
python -m mini train --corpus corpus --out runs/mini   # two hours of a core; the same goes on
python -m mini report --out runs/mini --page docs/model.md
cp -r runs/mini/mini-it griffin/data/                  # and `griffin chat` takes it
"""
