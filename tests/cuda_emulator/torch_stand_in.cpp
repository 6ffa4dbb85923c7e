// What the kernels' host code needs of a CUDA build of torch: the current stream, a device guard, error messages.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" {

int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

// A CPU torch has these two, but refuses: it has no accelerator.
int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  *guard = malloc(1);
  return 0;
}
int32_t aoti_torch_delete_device_guard(void* guard) {
  free(guard);
  return 0;
}

int32_t torch_c10_cuda_check_msg(int32_t error, const char* file, const char*, uint32_t line, bool, char** message) {
  *message = nullptr;
  if (error && asprintf(message, "CUDA emulator: error %d at %s:%u", error, file, line) < 0) abort();
  return 0;
}
void torch_c10_cuda_free_error_msg(char* message) { free(message); }
}
