"""Times of single layers: which are told, and that they are times."""

from tfq.evaluation.times import layer_times
from tfq.verify.contents import read


def test_layers_of_the_file_have_a_time_and_what_it_lacks_has_none(classifier):
    contents = read(classifier[3])
    names = [contents.names[operation.outputs[0]] for operation in contents.operations]
    found = layer_times(contents.content, [*names, "absent"])
    assert set(found) == set(names)
    assert all(0 < taken < 1000 for taken in found.values())


def test_what_no_layer_writes_counts_for_the_layer_that_reads_it(classifier):
    contents = read(classifier[3])
    last = contents.names[contents.operations[-1].outputs[0]]
    assert list(layer_times(contents.content, [last])) == [last]
