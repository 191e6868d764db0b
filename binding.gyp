# The addon, as `npm install` builds it: one source file for each unit of native/, with line tables for backtraces.
# CMakeLists.txt is the developers' build, where the debugger finds everything.
{
  'targets': [
    {
      'target_name': 'basalt_native',
      'sources': ['<!@(node scripts/native-units.mjs amalgams native build/amalgams)'],
      'include_dirs': ['native', "<!(node -p \"require('node-addon-api').include_dir\")"],
      'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS'],
      'cflags!': ['-O3'],
      'cflags': ['-O2', '-g1', '-fno-omit-frame-pointer', '-Wno-unused-parameter', '-Wno-missing-field-initializers', '-Wno-subobject-linkage'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-std=gnu++14', '-fexceptions', '-frtti'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-Werror=return-type'],
      # g++ collects its own garbage less often: a tenth of its time, for a quarter more of its memory (1.1 GB at most).
      'conditions': [['clang == 0', {'cflags': ['--param=ggc-min-heapsize=524288']}]],
      'libraries': ['-luring', '-lisal'],
    },
  ],
}
