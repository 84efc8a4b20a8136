// SPDX-License-Identifier: Apache-2.0
#include "kernels/brgemm_host.hpp"

#if defined(DEKODER_HAVE_ONEDNN)

#include <map>
#include <oneapi/dnnl/dnnl_ukernel.hpp>
#include <utility>
#include <vector>

#include "kernels/gemm_onednn.hpp"

namespace dekoder::host {

using dnnl::memory;

struct Brgemm::Kernel {
  dnnl::ukernel::brgemm brgemm;
  std::size_t scratch_bytes;
};

Brgemm::Brgemm(std::unique_ptr<Kernel> kernel) : kernel_(std::move(kernel)) {}
Brgemm::~Brgemm() = default;

const Brgemm* Brgemm::find(const BrgemmShape& shape) {
  if (!onednn_multiplies_bf16()) return nullptr;
  static std::map<BrgemmShape, std::unique_ptr<Brgemm>> kept;
  if (const auto found = kept.find(shape); found != kept.end()) return found->second.get();
  std::unique_ptr<Brgemm>& place = kept[shape];
  const auto [M, N, K, row_a, row_b, row_c, accumulate] = shape;
  try {
    dnnl::ukernel::brgemm brgemm(M, N, K, 1, row_a, row_b, row_c, memory::data_type::bf16, memory::data_type::bf16,
                                 memory::data_type::f32);
    brgemm.set_add_C(accumulate);
    brgemm.finalize();
    brgemm.generate();
    if (brgemm.get_B_pack_type() == dnnl::ukernel::pack_type::pack32) {
      const std::size_t scratch_bytes = brgemm.get_scratchpad_size();
      place.reset(new Brgemm(std::make_unique<Kernel>(std::move(brgemm), scratch_bytes)));
    }
  } catch (const dnnl::error&) {
    // none for this processor
  }
  return place.get();
}

void Brgemm::operator()(const BFloat16* a, const BFloat16* b, float* c) const {
  static const std::vector<std::pair<memory::dim, memory::dim>> one_tile{{0, 0}};
  thread_local std::vector<std::byte> scratch;
  if (scratch.size() < kernel_->scratch_bytes) scratch.resize(kernel_->scratch_bytes);
  kernel_->brgemm.set_hw_context();
  kernel_->brgemm.execute(a, b, one_tile, c, scratch.data());
}

void release_brgemm() {
  dnnl::ukernel::brgemm::release_hw_context();
}

}  // namespace dekoder::host

#else

namespace dekoder::host {

struct Brgemm::Kernel {};
Brgemm::~Brgemm() = default;

const Brgemm* Brgemm::find(const BrgemmShape&) {
  return nullptr;
}
void Brgemm::operator()(const BFloat16*, const BFloat16*, float*) const {}
void release_brgemm() {}

}  // namespace dekoder::host

#endif
