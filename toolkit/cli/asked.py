"""What a command's options ask about: the centre, its class or property, the domain that cuts the ball."""

from __future__ import annotations

from toolkit.arrays import FloatArray
from toolkit.cli.question import OF_DATA, Question
from toolkit.data.amounts import DataDomain
from toolkit.data.dataset import Dataset
from toolkit.data.datasets import load_dataset
from toolkit.data.images import check_fits, read_image
from toolkit.networks.class_names import check_class_names
from toolkit.networks.network import Network
from toolkit.problems.properties import Property, as_property, robustness
from toolkit.problems.property_table import load_property


def asked_data(question: Question) -> Dataset:
    """The test split of --data. Raises as `load_dataset`."""
    return load_dataset(str(question.data), domain=question.domain)


def asked_images(question: Question) -> tuple[Dataset, range]:
    """The data set and its first --count test images. Raises ValueError where it has fewer."""
    data, count = asked_data(question), question.count or 0
    if not 1 <= count <= len(data):
        raise ValueError(f"--count must be in 1 … {len(data)} for {data.name}, got {question.count}")
    return data, range(count)


def ball_domain(question: Question) -> DataDomain | None:
    """What cuts the ball: --domain, else what the data set states of itself, else [0, 1]; None with --no-domain."""
    if question.box == OF_DATA and question.data is not None:
        return asked_data(question).cut
    return question.domain


def centre(question: Question, network: Network) -> tuple[str, FloatArray, int | None]:
    """What the centre is called, its features, and its class c*; None where a property is asked of an --image."""
    if (question.data is None) == (question.image is None):
        raise ValueError("give either --data NAME --index N or --image FILE --label C")
    if question.image is not None:
        if question.label is None and question.property_file is None:
            raise ValueError("--image needs --label, the class the image shows")
        image = read_image(question.image, network.input_shape, question.domain)
        return f"{question.image.name} ({image.reading})", image.pixels.ravel(), question.label
    if question.index is None:
        raise ValueError("--data needs --index, which of its test images to take")
    data = asked_data(question)
    if not 0 <= question.index < len(data):
        raise ValueError(f"--index must be in 0 … {len(data) - 1} for {data.name}, got {question.index}")
    features = data.features[question.index]
    check_fits(data.shape, network.input_shape, data.name)
    check_class_names(network, data)
    label = int(data.labels[question.index]) if question.label is None else question.label
    own = f" ({data.image_names[question.index]})" if data.image_names else ""
    return f"{data.name} test image {question.index}{own}", features, label


def asked_property(question: Question, network: Network, label: int | None) -> Property:
    """The property of --property, else that the class c* = label holds. Raises ValueError if it is not about the
    network's outputs."""
    if question.property_file is not None:
        return as_property(load_property(question.property_file), network.output_size)
    assert label is not None
    return robustness(network.output_size, label, question.targets)


def property_of_all(question: Question, network: Network) -> Property | None:
    """The property of --property, which every image of --count is asked; None: the class of its label. Raises as
    `asked_property`."""
    return None if question.property_file is None else asked_property(question, network, None)


def about(question: Question, label: int | None) -> str:
    """What is asked, in words: the class, or the file of the property."""
    if question.property_file is not None:
        return f"property {question.property_file.name}"
    names = asked_data(question).class_names if question.data is not None else ()
    return f"class {label}" + (f" ({names[label]})" if label is not None and 0 <= label < len(names) else "")
