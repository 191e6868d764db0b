# The addon, as `npm install` builds it. The list of sources is generated (npm run generate); CMakeLists.txt is the developers' build.
{
  'includes': ['native/sources.gypi'],
  'targets': [
    {
      'target_name': 'basalt_native',
      'sources': ['<@(basalt_sources)', '<@(basalt_addon_sources)'],
      'include_dirs': ['native', "<!(node -p \"require('node-addon-api').include_dir\")"],
      'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS'],
      'cflags!': ['-O3'],
      'cflags': ['-O2', '-g', '-fno-omit-frame-pointer', '-Wno-unused-parameter', '-Wno-missing-field-initializers'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-std=gnu++14', '-fexceptions', '-frtti'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-Werror=return-type'],
      'libraries': ['-luring', '-lisal'],
    },
  ],
}
