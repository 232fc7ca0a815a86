"""From trials to a verdict: load a table, aggregate it, test it, draw it, report it."""

from analysis.load import load as load
from analysis.mikler2021 import load_published as load_published
from analysis.renda2020 import load_renda2020 as load_renda2020
