#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kokkos_kernels_prefix.sh HEADERS PREFIX: makes a Kokkos Kernels that find_package(KokkosKernels) finds from its headers
# alone. The library beside these headers in Debian is Serial/double and pulls in a second Kokkos; the templates need none
# of it except the BLAS wrappers, which the project defines itself when DEKODER_KOKKOSKERNELS_HEADERS_ONLY is set.
set -euo pipefail
headers=${1:?folder with the Kokkos Kernels headers} prefix=${2:?prefix to install into}
[ -e "$headers/KokkosBlas3_gemm.hpp" ] || { echo "no KokkosBlas3_gemm.hpp in $headers" >&2; exit 1; }

version() { # version MAJOR|MINOR|PATCH: from the configuration header that came along
  sed -nE "s/^#define KOKKOSKERNELS_VERSION_$1 +([0-9]+)/\1/p" "$headers/KokkosKernels_config.h"
}
major=$(version MAJOR) minor=$(version MINOR) patch=$(version PATCH)

include=$prefix/include/kokkoskernels
config=$prefix/include/kokkoskernels-config
package=$prefix/lib/cmake/KokkosKernels
rm -rf "$include" "$config" "$package"
mkdir -p "$include" "$config/generated_specializations_hpp" "$package"
cp -R "$headers/." "$include/"
rm -rf "$include/generated_specializations_hpp" "$include/KokkosKernels_config.h"

# No precompiled instantiation is declared: every kernel is instantiated where it is used.
grep -rhoE 'generated_specializations_hpp/[A-Za-z0-9_]+\.hpp' "$include" | sort -u | while read -r name; do
  : > "$config/$name"
done

cat > "$config/KokkosKernels_config.h" <<EOF
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <Kokkos_Macros.hpp>
#ifndef F77_BLAS_MANGLE
#define F77_BLAS_MANGLE(name, NAME) name##_
#endif
#define KOKKOSKERNELS_VERSION $((major * 10000 + minor * 100 + patch))
#define KOKKOSKERNELS_VERSION_MAJOR $major
#define KOKKOSKERNELS_VERSION_MINOR $minor
#define KOKKOSKERNELS_VERSION_PATCH $patch
#define KOKKOSKERNELS_INST_EXECSPACE_OPENMP
#define KOKKOSKERNELS_INST_MEMSPACE_HOSTSPACE
#ifdef KOKKOS_ENABLE_CUDA
#define KOKKOSKERNELS_INST_EXECSPACE_CUDA
#define KOKKOSKERNELS_INST_MEMSPACE_CUDASPACE
#endif
#define KOKKOSKERNELS_INST_FLOAT
#define KOKKOSKERNELS_INST_DOUBLE
#define KOKKOSKERNELS_INST_LAYOUTRIGHT
#define KOKKOSKERNELS_INST_ORDINAL_INT
#define KOKKOSKERNELS_INST_OFFSET_SIZE_T
#define KOKKOSKERNELS_ENABLE_TPL_BLAS
#ifndef KOKKOS_ENABLE_CUDA
#define KOKKOSKERNELS_ENABLE_HOST_ONLY
#endif
#define KOKKOSKERNELS_IMPL_COMPILE_LIBRARY false
#define KOKKOSKERNELS_ENABLE_COMPONENT_BATCHED
#define KOKKOSKERNELS_ENABLE_COMPONENT_BLAS
EOF

cat > "$package/KokkosKernelsConfig.cmake" <<'EOF'
# SPDX-License-Identifier: Apache-2.0
include(CMakeFindDependencyMacro)
find_dependency(Kokkos CONFIG)
find_dependency(BLAS)
get_filename_component(_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET Kokkos::kokkoskernels)
  add_library(Kokkos::kokkoskernels INTERFACE IMPORTED)
  target_include_directories(Kokkos::kokkoskernels SYSTEM INTERFACE
    "${_prefix}/include/kokkoskernels-config" "${_prefix}/include/kokkoskernels")
  target_compile_definitions(Kokkos::kokkoskernels INTERFACE DEKODER_KOKKOSKERNELS_HEADERS_ONLY)
  target_link_libraries(Kokkos::kokkoskernels INTERFACE Kokkos::kokkos BLAS::BLAS)
endif()
unset(_prefix)
EOF
cat > "$package/KokkosKernelsConfigVersion.cmake" <<EOF
set(PACKAGE_VERSION $major.$minor.$patch)
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
EOF
