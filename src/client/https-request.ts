// SPDX-License-Identifier: Apache-2.0
//
// One request over TLS to a server whose certificate is signed by an authority of one's own, which fetch cannot be told.

import { request } from 'node:https';

export interface HttpsRequest {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** PEM. @default the machine's authorities */
  readonly ca?: string;
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

/** No answer of the API is longer. */
const answerBytesMax = 64 * 1024 * 1024;

/** Rejects with what the connection failed of, or with the signal's reason. */
export function httpsRequest(url: string, { method, headers, body, ca, signal }: HttpsRequest): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(signal.aborted ? signal.reason : error);
    const options = { method, headers, signal, minVersion: 'TLSv1.3', ...(ca === undefined ? {} : { ca }) } as const;
    const sent = request(url, options, (response) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      response.on('error', fail);
      response.on('data', (piece: Buffer) => {
        bytes += piece.length;
        if (bytes > answerBytesMax) response.destroy(new Error(`the answer is longer than ${answerBytesMax} bytes`));
        else pieces.push(piece);
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(pieces).toString() }));
    });
    sent.on('error', fail);
    sent.end(body);
  });
}
