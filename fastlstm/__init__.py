"""fastlstm: train a recurrent network, keep it as one small file, run it anywhere."""

from fastlstm import reference
from fastlstm.errors import FastLSTMError
from fastlstm.model import GRU, LSTM, RNN, Affine, Dense, Model
from fastlstm.model_file import load
from fastlstm.stream import Stream
from fastlstm.verify import verify

__all__ = ["GRU","LSTM","RNN","Affine","Dense","FastLSTMError","Model","Stream","load","reference","verify"]
