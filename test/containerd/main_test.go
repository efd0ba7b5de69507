// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// TestMain lets the test's own program be both ends of a conversation by UDP, for which
// busybox has none.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "udp-echo":
			udpEcho(os.Args[2])
		case "udp-ask":
			udpAsk(os.Args[2])
		}
	}
	code := m.Run()
	_ = os.Remove(toolPath())
	os.Exit(code)
}

// udpEcho gives back what it is sent.
func udpEcho(port string) {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err == nil {
			_, _ = c.WriteTo(buf[:n], from)
		}
	}
}

// udpAsk succeeds if it is answered within a second.
func udpAsk(addr string) {
	c, err := net.Dial("udp", addr)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("hello"))
		_, err = c.Read(make([]byte, 16))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// echo starts an echo in a namespace of the node.
func (n *node) echo(space, port string) {
	n.t.Helper()
	self, err := os.Executable()
	n.check(err)
	n.start("echo-"+space, in(space, self, "udp-echo", port)...)
}

// ask asks an echo from the host.
func (n *node) ask(addr string) (string, error) {
	self, err := os.Executable()
	n.check(err)
	return n.try(self, "udp-ask", addr)
}
