// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace dekoder {

using Token = std::int32_t;  ///< its place in the vocabulary, from 0

}  // namespace dekoder
