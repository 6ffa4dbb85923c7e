// What the CPU kernels need of libtorch_cpu, without torch: contiguous tensors of the stable ABI, and a loop. What is
// allocated is not a number until it is written, and the pieces of a parallel loop run last to first: neither may show.
#include "torch_stand_in.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <map>

namespace stand_in {

static std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;  // made when first asked for, whichever library is initialised first
  return all;
}

Kernel find(const std::string& name) { return kernels().at(name); }

}  // namespace stand_in

using stand_in::Tensor;

static Tensor* of(AtenTensorHandle handle) { return reinterpret_cast<Tensor*>(handle); }
static StableIValue value_of(const void* pointer) { return reinterpret_cast<StableIValue>(pointer); }

// self.new_empty(sizes, dtype, ...) or new_zeros: all arguments are ours to delete.
static void make_new(StableIValue* stack, int fill) {
  Tensor* const self = reinterpret_cast<Tensor*>(stack[0]);
  auto* const sizes = reinterpret_cast<std::vector<StableIValue>*>(stack[1]);
  auto* const type = reinterpret_cast<StableIValue*>(stack[2]);
  Tensor* const made = new Tensor(type ? int32_t(*type) : self->type, {sizes->begin(), sizes->end()});
  std::fill(made->data->begin(), made->data->end(), char(fill));
  delete self, delete sizes, delete type;
  stack[0] = value_of(made);
}

extern "C" {

uint64_t aoti_torch_abi_version() { return 0x020a000000000000; }
size_t aoti_torch_dtype_element_size(int32_t type) { return stand_in::element_size(type); }
int32_t aoti_torch_layout_strided() { return 0; }

#define TYPE(name, number) \
  int32_t aoti_torch_dtype_##name() { return number; }
#define OTHER(name) \
  int32_t aoti_torch_##name() { return -1; }
// clang-format off
TYPE(uint8, 0) TYPE(int8, 1) TYPE(int16, 2) TYPE(int32, 3) TYPE(int64, 4)  // as torch numbers them
TYPE(float16, 5) TYPE(float32, 6) TYPE(float64, 7) TYPE(bool, 11) TYPE(bfloat16, 15)
OTHER(dtype_complex32) OTHER(dtype_complex64) OTHER(dtype_complex128) OTHER(dtype_uint16) OTHER(dtype_uint32)
OTHER(dtype_uint64) OTHER(dtype_float8_e4m3fn) OTHER(dtype_float8_e4m3fnuz) OTHER(dtype_float8_e5m2)
OTHER(dtype_float8_e5m2fnuz) OTHER(layout__mkldnn) OTHER(layout_jagged) OTHER(layout_sparse_bsc)
OTHER(layout_sparse_bsr) OTHER(layout_sparse_coo) OTHER(layout_sparse_csc) OTHER(layout_sparse_csr)
OTHER(device_type_cuda) OTHER(device_type_meta) OTHER(device_type_mps) OTHER(device_type_privateuse1)
OTHER(device_type_xpu) OTHER(memory_format_channels_last) OTHER(memory_format_channels_last_3d)
OTHER(memory_format_contiguous_format) OTHER(memory_format_preserve_format)
int32_t aoti_torch_device_type_cpu() { return 0; }
// clang-format on

AOTITorchError aoti_torch_get_device_type(AtenTensorHandle, int32_t* type) { return *type = 0; }
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle, int32_t* index) { return *index = -1, 0; }
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle t, int32_t* type) { return *type = of(t)->type, 0; }
AOTITorchError aoti_torch_get_dim(AtenTensorHandle t, int64_t* dim) { return *dim = of(t)->sizes.size(), 0; }
AOTITorchError aoti_torch_get_numel(AtenTensorHandle t, int64_t* count) { return *count = of(t)->numel(), 0; }
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle t, int64_t** sizes) { return *sizes = of(t)->sizes.data(), 0; }
AOTITorchError aoti_torch_get_size(AtenTensorHandle t, int64_t d, int64_t* size) {
  return *size = of(t)->sizes.at(d < 0 ? d + of(t)->sizes.size() : d), 0;
}
AOTITorchError aoti_torch_get_stride(AtenTensorHandle t, int64_t d, int64_t* stride) {
  const auto& sizes = of(t)->sizes;
  *stride = 1;
  for (size_t i = d + 1; i < sizes.size(); ++i) *stride *= sizes[i];
  return 0;
}
AOTITorchError torch_get_mutable_data_ptr(AtenTensorHandle t, void** data) { return *data = of(t)->data->data(), 0; }
AOTITorchError torch_get_const_data_ptr(AtenTensorHandle t, const void** data) {
  return *data = of(t)->data->data(), 0;
}
AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle t, AtenTensorHandle* copy) {
  return *copy = reinterpret_cast<AtenTensorHandle>(new Tensor(*of(t))), 0;
}
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle t) { return delete of(t), 0; }

AOTITorchError torch_new_list_reserve_size(size_t, StableListHandle* list) {
  return *list = reinterpret_cast<StableListHandle>(new std::vector<StableIValue>), 0;
}
AOTITorchError torch_list_push_back(StableListHandle list, StableIValue value) {
  return reinterpret_cast<std::vector<StableIValue>*>(list)->push_back(value), 0;
}
AOTITorchError torch_delete_list(StableListHandle list) {
  return delete reinterpret_cast<std::vector<StableIValue>*>(list), 0;
}

AOTITorchError aoti_torch_library_init_impl(const char*, const char*, const char*, uint32_t, TorchLibraryHandle* l) {
  return *l = nullptr, 0;
}
AOTITorchError aoti_torch_library_init_fragment(const char*, const char*, uint32_t, TorchLibraryHandle* library) {
  return *library = nullptr, 0;
}
AOTITorchError aoti_torch_library_def(TorchLibraryHandle, const char*) { return 0; }
AOTITorchError aoti_torch_delete_library_object(TorchLibraryHandle) { return 0; }
AOTITorchError torch_library_impl(TorchLibraryHandle, const char* name, stand_in::Kernel kernel, uint64_t) {
  return stand_in::kernels()[name] = kernel, 0;
}

AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t grain, ParallelFunc f, void* context) {
  for (int64_t last = end; last > begin; last -= grain) f(std::max(begin, last - grain), last, context);
  return 0;
}

AOTITorchError torch_call_dispatcher(const char* op, const char*, StableIValue* stack, uint64_t) {
  const std::string name = op;
  if (name == "aten::new_empty") return make_new(stack, 0xff), 0;
  if (name == "aten::new_zeros") return make_new(stack, 0), 0;
  return name == "aten::contiguous" ? 0 : 1;  // the tensor as it is
}
}
