"""fastlstm: train a recurrent network, keep it as one small file, run it anywhere."""

from fastlstm.model import GRU, LSTM, RNN, Affine, Dense, Model
