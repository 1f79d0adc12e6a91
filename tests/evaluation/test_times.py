"""Times of single layers: which are told, and that they are times."""

from tfq.evaluation.times import layer_times


def test_every_layer_of_the_file_has_a_time_and_what_it_lacks_has_none(classifier):
    content = classifier[3]
    from tfq.verify.contents import read

    names = [name for o in read(content).operations for name in [read(content).names[o.outputs[0]]]]
    found = layer_times(content, [*names, "absent"])
    assert set(found) <= set(names)
    assert found
    assert all(0 < taken < 1000 for taken in found.values())
