// SPDX-License-Identifier: Apache-2.0
//
// The OpenAPI document, made from the same routes and schemas that serve requests.

import { ErrorView } from '../model/api.js';
import { type Route, roleOf } from './routes/route.js';

export function openApiDocument(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Basalt', version },
    // Not asked for on loopback while there are no tokens.
    components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
    security: [{ token: [] }],
    paths,
  };
}

function operation(route: Route): Record<string, unknown> {
  const names = [...route.path.matchAll(/:(\w+)/g)].map((match) => match[1] ?? '');
  const parameters = [
    ...names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
    ...(route.flags ?? []).map((name) => ({ name, in: 'query', required: false, schema: { type: 'boolean' } })),
  ];
  const json = (schema: unknown): unknown => ({ 'application/json': { schema: JSON.parse(JSON.stringify(schema)) } });
  return {
    summary: route.summary,
    'x-role': roleOf(route),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === null ? {} : { requestBody: { required: true, content: json(route.body) } }),
    responses: {
      [route.status]: { description: 'done', content: json(route.response) },
      default: { description: 'refused or failed', content: json(ErrorView) },
    },
  };
}
