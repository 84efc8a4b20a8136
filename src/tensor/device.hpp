// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace dekoder {

/// The PCI id of the GPU that the backend computes on, e.g. "0000:41:00.0"; empty on CPUs.
std::string device_id();

}  // namespace dekoder
