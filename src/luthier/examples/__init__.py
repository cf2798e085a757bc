"""Files of examples, read into immutable `Example`s and split leak-safe."""

from luthier.examples.example import Example, Message
from luthier.examples.read import Loaded, Problem, Reading, read_examples, stream_examples
from luthier.examples.split import Split, split_examples

__all__ = [
    "Example",
    "Loaded",
    "Message",
    "Problem",
    "Reading",
    "Split",
    "read_examples",
    "split_examples",
    "stream_examples",
]
