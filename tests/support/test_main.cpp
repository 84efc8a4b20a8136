// SPDX-License-Identifier: Apache-2.0
// main() of every GoogleTest executable: a Kokkos runtime around all tests. Their names are told without one, so
// that they are known where no device is.
#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <optional>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::optional<Kokkos::ScopeGuard> kokkos;
  if (!GTEST_FLAG_GET(list_tests)) kokkos.emplace(argc, argv);
  return RUN_ALL_TESTS();
}
