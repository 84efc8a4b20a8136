// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// rms: root mean square, with neither mean nor bias.
enum class NormKind { layer, rms };

}  // namespace dekoder
