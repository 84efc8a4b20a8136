// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tensor/tensor.hpp"

namespace dekoder {

/// Makes every thread of `exec` on a CPU treat denormal floating-point numbers as zero, as operand (DAZ) and as
/// result (FTZ): one of them costs over a hundred cycles, and none matters to training. Sets bits 15 and 6 of MXCSR
/// (Intel SDM volume 1, section 10.2.3); does nothing on other processors and on GPUs. Lasts as long as the threads
/// do.
void flush_denormals(const ExecSpace& exec);

}  // namespace dekoder
