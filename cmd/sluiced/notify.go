// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
)

// notifyReady tells systemd that requests are served, see sd_notify(3). Without
// NOTIFY_SOCKET nobody waits. An error would have nobody to go to: systemd
// itself reports that the message never came.
func notifyReady() {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	// A leading @ means the abstract namespace, to systemd and to package net.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte("READY=1"))
}
