# SPDX-License-Identifier: Apache-2.0
"""BertViz's and CircuitsVis' input hold the file's maps in the shapes that these take."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.attention_reader import read_attention  # noqa: E402
from dekoder_postprocess.circuits import bertviz_input, circuitsvis_input  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from synthetic_run import write_run  # noqa: E402


class Circuits(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.written = write_run(scratch.name, layers=2, heads=3)
        self.probe = read_attention(scratch.name).probe()

    def test_bertviz(self):
        attention, tokens = bertviz_input(self.probe)
        self.assertEqual(([layer.shape for layer in attention], len(tokens)), ([(1, 3, 24, 24)] * 2, 24))
        for l, layer in enumerate(attention):
            self.assertEqual((layer.dtype, layer.flags["C_CONTIGUOUS"]), (np.float32, True))
            np.testing.assert_array_equal(layer[0], self.written.maps["text_0"][40][l].astype(np.float32))

    def test_circuitsvis(self):
        attention, tokens = circuitsvis_input(self.probe, layer=1, step=20)
        np.testing.assert_array_equal(attention, self.written.maps["text_0"][20][1].astype(np.float32))
        self.assertEqual((attention.shape, attention.dtype), ((3, 24, 24), np.float32))
        self.assertEqual(tokens[:4], ["I", "t", "\u00b7", "i"])

    def test_needs_no_matplotlib(self):
        code = "import sys, dekoder_postprocess.circuits; sys.exit('matplotlib' in sys.modules)"
        package = Path(__file__).resolve().parents[1]
        self.assertEqual(subprocess.run([sys.executable, "-B", "-c", code], cwd=package).returncode, 0)

    def test_refused(self):
        with self.assertRaisesRegex(RunError, "no step 7"):
            bertviz_input(self.probe, step=7)
        with self.assertRaises(IndexError):
            circuitsvis_input(self.probe, layer=2)


if __name__ == "__main__":
    unittest.main()
