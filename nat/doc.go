// SPDX-License-Identifier: Apache-2.0

// Package nat translates addresses and ports.
package nat
