// SPDX-License-Identifier: Apache-2.0
//
// SpdkBridge: an spdk_tgt as an Engine whose bdevs can be opened: each is served for as long as it is open, and a native
// engine in this process connects to it. For tests only: anybody on this machine may connect meanwhile.

import type { BdevHandle, Engine, EngineEvent, Method, MethodResult, RpcArguments } from '../../engine.js';
import { createNativeEngine } from '../../native/native-engine.js';
import { freePort, type SpdkProcess } from './spdk-process.js';

export class SpdkBridge implements Engine {
  readonly #spdk: SpdkProcess;
  readonly #native = createNativeEngine();
  #opened = 0;
  #port: number | null = null;

  constructor(spdk: SpdkProcess) {
    this.#spdk = spdk;
  }

  rpc<M extends Method>(method: M, ...args: RpcArguments<M>): Promise<MethodResult<M>> {
    return this.#spdk.engine.rpc(method, ...args);
  }

  on(event: 'event', listener: (event: EngineEvent) => void): () => void {
    return this.#spdk.engine.on(event, listener);
  }

  allocate(bytes: number): ArrayBuffer {
    return this.#native.allocate(bytes);
  }

  async openBdev(name: string): Promise<BdevHandle> {
    const nqn = `nqn.2026-01.io.basalt:test:${++this.#opened}`;
    if (this.#port === null) {
      this.#port = await freePort();
      await this.#spdk.call('nvmf_create_transport', { trtype: 'TCP' });
    }
    const trsvcid = String(this.#port);
    await this.#spdk.call('nvmf_create_subsystem', { nqn, allow_any_host: true, serial_number: 'TEST' });
    await this.#spdk.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: name } });
    const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid };
    await this.#spdk.call('nvmf_subsystem_add_listener', { nqn, listen_address });
    const at = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid, subnqn: nqn } as const;
    const controller = `bridge${this.#opened}`;
    const [bdev = ''] = await this.#native.rpc('bdev_nvme_attach_controller', { name: controller, ...at });
    const handle = await this.#native.openBdev(bdev);
    const close = async (): Promise<void> => {
      await handle.close();
      await this.#native.rpc('bdev_nvme_detach_controller', { name: controller });
      await this.#spdk.call('nvmf_delete_subsystem', { nqn });
    };
    return {
      info: handle.info,
      read: (offsetBytes, into) => handle.read(offsetBytes, into),
      write: (offsetBytes, from) => handle.write(offsetBytes, from),
      flush: () => handle.flush(),
      close,
    };
  }

  async close(): Promise<void> {
    await this.#native.close();
    await this.#spdk.close();
  }
}
