# SPDX-License-Identifier: Apache-2.0
# The tests that run once more in another form of the kernels: that for GPUs on the host, and the cuda plug-in's.
set(DEKODER_KERNEL_TESTS test_accumulate test_adamw test_attention test_attention_statistics test_attention_weights test_column_sum
    test_cross_entropy test_decoder test_decoder_activations test_elementwise test_embedding test_head_norm test_muon
    test_normalization test_reduction test_training_step)
# They touch device memory, but launch no kernel of their own or only the library's.
set(DEKODER_DEVICE_TESTS test_attention_memory test_checkpoint test_checkpoint_format test_evaluator test_gemm test_generator)
# With bfloat16, too.
set(DEKODER_BF16_TESTS test_adamw test_attention test_cross_entropy test_elementwise test_gemm test_head_norm test_muon test_normalization)
set(DEKODER_GRADIENT_TESTS test_attention_gradient test_decoder_gradient test_kernels_gradient)
