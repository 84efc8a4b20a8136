# SPDX-License-Identifier: Apache-2.0
"""tests/mutation: which changes are tried on a source, and that its plan names units and tests that are there."""
import os
import sys
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(ROOT / "tests" / "mutation"))
sys.dont_write_bytecode = True

import mutate  # noqa: E402
from operators import mutants_of  # noqa: E402


def changes(text, operator=None):
    return [mutant.apply(text) for mutant in mutants_of(text) if operator in (None, mutant.operator)]


class Operators(unittest.TestCase):
    def test_one_token_at_a_time(self):
        self.assertEqual(changes("int a = b * c;"), ["int a = b / c;"])
        self.assertEqual(changes("int a = b[i] - 8u;"), ["int a = b[i] + 8u;", "int a = b[i] - 7u;", "int a = b[i] - 9u;"])
        self.assertEqual(changes("return a < b;"), ["return a <= b;"])
        self.assertEqual(changes("return a && !b;"), ["return a || !b;", "return a && b;"])
        self.assertEqual(changes("double x = 0.5;"), ["double x = 1.5;"])
        self.assertEqual(changes("const auto x = std::min(a, b);"),
                         ["const auto x = std::max(a, b);", "const auto x = std::min(b, a);"])
        self.assertEqual(changes("return c ? a : b;"), ["return c && false ? a : b;", "return c || true ? a : b;"])

    def test_conditions_are_negated(self):
        self.assertEqual(changes("if (ready(a)) b = c;", "condition"), ["if (!(ready(a))) b = c;"])

    def test_statements_are_left_out(self):
        self.assertEqual(changes("void f() { a.b[i] = c; }", "statement"), ["void f() { ; }"])
        self.assertEqual(changes("void f() { for (;;) ++count_; }", "statement"), ["void f() { for (;;) ; }"])
        self.assertEqual(changes("void f() { run([&] { return x; }); }", "statement"), ["void f() { ; }"])
        for declaration in ("void f() { Tensor x = y; }", "void f() { std::vector<int> x(3); }", "void f() { return g(); }",
                            "struct S { S(int x) : x_(x) {} };", "} Token Set::find(int c) const { return c; }"):
            self.assertEqual(changes(declaration, "statement"), [], declaration)

    def test_a_message_is_not_changed_but_its_throw_is_left_out(self):
        self.assertEqual(changes('{ throw Error("at {}", at + 1); }'), ["{ ; }"])

    def test_what_is_no_code_of_this_backend_stays(self):
        for text in ("// a + b", 'f("a + b");', "#define A (b + c)", "Kokkos::View<Real*> x;", "const Tensor& x;",
                     "#if defined(DEKODER_BACKEND_CUDA)\nint a = b + c;\n#endif\n"):
            self.assertEqual([c for c in changes(text) if c != ";"], [], text)
        self.assertEqual(changes("#if defined(DEKODER_BACKEND_CUDA)\nint a = b + c;\n#else\nint a = b - c;\n#endif\n"),
                         ["#if defined(DEKODER_BACKEND_CUDA)\nint a = b + c;\n#else\nint a = b + c;\n#endif\n"])

    def test_every_change_is_a_change_of_the_real_sources(self):
        for unit in mutate.PLAN:
            text = (ROOT / "src" / f"{unit}.cpp").read_text()
            mutants = mutants_of(text)
            self.assertGreater(len(mutants), 10, unit)
            for mutant in mutants:
                self.assertFalse(mutant.apply(text) == text, mutant)
                self.assertEqual(text[: mutant.begin].count("\n") + 1, mutant.line)


class Plan(unittest.TestCase):
    def test_units_and_tests_are_there(self):
        for unit, tests in mutate.PLAN.items():
            self.assertTrue((ROOT / "src" / f"{unit}.cpp").is_file(), unit)
            for test in tests:
                kind, name, last = test.split(".")
                suffix = "cpp" if last in (*mutate.CORES, "once") else last
                self.assertTrue((ROOT / "tests" / kind / f"{name}.{suffix}").is_file(), test)

    def test_a_sample_is_the_beginning_of_a_larger_one(self):
        mutants = mutants_of((ROOT / "src/kernels/adamw.cpp").read_text())
        few, more = mutate.sample(mutants, 5, "1 x"), mutate.sample(mutants, 12, "1 x")
        self.assertEqual(more[:5], few)
        self.assertEqual(len(set(more)), 12)
        self.assertNotEqual(mutate.sample(mutants, 5, "2 x"), few)


if __name__ == "__main__":
    unittest.main()
