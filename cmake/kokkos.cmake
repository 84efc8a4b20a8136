# SPDX-License-Identifier: Apache-2.0
# A Kokkos for each backend: a Kokkos with CUDA links libcuda.so.1, which machines without a GPU lack, so the openmp plug-in
# comes from one without. Imported targets belong to the folder that finds them: each backend has a folder of its own, and
# tests/ and tests/cuda/, which link the cores, find it again.
set(DEKODER_KOKKOS_openmp "" CACHE PATH "Prefix of the Kokkos (without CUDA) of the openmp plug-in; empty: the usual places")
set(DEKODER_KOKKOS_cuda "" CACHE PATH "Prefix of the Kokkos with CUDA of the cuda plug-in; empty: the usual places")

# Kokkos and the libraries of products that the core of a backend is linked to; for cuda CMake's language CUDA, too.
macro(dekoder_find_kokkos backend)
  if(DEKODER_KOKKOS_${backend})
    file(GLOB kokkos_config "${DEKODER_KOKKOS_${backend}}/lib*/cmake/Kokkos/KokkosConfig.cmake"
         "${DEKODER_KOKKOS_${backend}}/lib*/*/cmake/Kokkos/KokkosConfig.cmake")
    if(NOT kokkos_config)
      message(FATAL_ERROR "DEKODER_KOKKOS_${backend} is ${DEKODER_KOKKOS_${backend}}; expected the prefix of an installed "
                          "Kokkos: there is no lib*/cmake/Kokkos/KokkosConfig.cmake below it")
    endif()
    list(GET kokkos_config 0 kokkos_config)
    cmake_path(GET kokkos_config PARENT_PATH Kokkos_DIR)  # of this folder alone; it hides the cached one
  endif()
  # With this component Kokkos leaves the project's compilers alone; otherwise one with CUDA puts nvcc in front of all of them.
  find_package(Kokkos REQUIRED CONFIG COMPONENTS separable_compilation)
  if(Kokkos_VERSION VERSION_LESS 4.6)
    message(FATAL_ERROR "dekoder needs Kokkos 4.6 or newer; that of ${Kokkos_DIR} is ${Kokkos_VERSION}. Name another with "
                        "-DDEKODER_KOKKOS_${backend}=PREFIX; jobs/setup/build_kokkos.sh makes one")
  endif()
  if("${backend}" STREQUAL "cuda" AND NOT "CUDA" IN_LIST Kokkos_DEVICES)
    message(FATAL_ERROR "The cuda plug-in needs a Kokkos with CUDA; that of ${Kokkos_DIR} has ${Kokkos_DEVICES}. Name one with "
                        "-DDEKODER_KOKKOS_cuda=PREFIX; jobs/setup/build_kokkos.sh makes one")
  elseif("${backend}" STREQUAL "openmp" AND "CUDA" IN_LIST Kokkos_DEVICES)
    message(FATAL_ERROR "The openmp plug-in needs a Kokkos without CUDA, so that it starts where no driver is; that of ${Kokkos_DIR} "
                        "has ${Kokkos_DEVICES}. Name one with -DDEKODER_KOKKOS_openmp=PREFIX (jobs/setup/build_kokkos.sh "
                        "makes one), or leave plug-in and tests out: -DDEKODER_BACKENDS=cuda -DDEKODER_TESTS=OFF")
  elseif(NOT "OPENMP" IN_LIST Kokkos_DEVICES)
    message(FATAL_ERROR "dekoder needs a Kokkos with OpenMP; that of ${Kokkos_DIR} has ${Kokkos_DEVICES}")
  endif()
  if("${backend}" STREQUAL "openmp")
    find_package(KokkosKernels REQUIRED CONFIG HINTS ${DEKODER_KOKKOS_openmp})
    if(DEKODER_ONEDNN)
      find_package(dnnl CONFIG QUIET)
    endif()
  else()
    find_package(CUDAToolkit REQUIRED)
    set(CMAKE_CUDA_ARCHITECTURES ${Kokkos_CUDA_ARCHITECTURES})
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    enable_language(CUDA)
  endif()
endmacro()

# For a target whose objects are nvcc's or plain C++. Linked as CUDA, Kokkos' options for nvcc_wrapper as a linker stay out.
function(dekoder_use_nvcc target)
  target_compile_options(${target} PUBLIC
    $<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;--expt-relaxed-constexpr;-Xcompiler=-fopenmp>)
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Shared
    BUILD_RPATH ${CUDAToolkit_LIBRARY_DIR})  # nvcc finds its own libraries at link time without a path, the loader does not
endfunction()
