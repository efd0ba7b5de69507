// SPDX-License-Identifier: Apache-2.0

package kerneltest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

func TestRouterForwards(t *testing.T) {
	kt.Enter(t, "ip")
	sides := kt.Router(t, 9000, 2, 40)
	for src, dst := range map[string]string{
		"10.71.1.2": "10.71.2.40", "fd71:1::2": "fd71:2::40", "10.71.2.40": "10.71.1.2", "fd71:2::40": "fd71:1::2",
	} {
		in, out, build := sides[0], sides[1], pt.UDP4
		if strings.HasSuffix(src, "40") {
			in, out = out, in
		}
		if strings.HasPrefix(src, "fd") {
			build = pt.UDP6
		}
		p := pt.Packet{SrcMAC: in.Station, DstMAC: in.Router, Src: pt.IP(src), Dst: pt.IP(dst), Payload: pt.Bytes(8000)}
		in.Send(build(p))
		b := out.Receive(20 * time.Second)
		for b != nil && packet.MAC(b) != out.Station { // what the router says of itself
			b = out.Receive(20 * time.Second)
		}
		if b == nil {
			t.Fatalf("nothing came through from %s", src)
		}
		pt.Check(t, pt.Frame(b), pt.EtherSrc(out.Router), pt.UDP(), pt.Data(p.Payload))
	}
}

func TestNamespacesAreApart(t *testing.T) {
	ns := kt.NewNS(t)
	kt.Enter(t, "ip")
	kt.IP(t, "link add one type veth peer name two", "link set one up", "link set two up")
	kt.AwaitUp(t, "one", "two")
	if out := kt.RunIn(t, ns, "ip", "-o", "link"); strings.Contains(out, "one@two") {
		t.Errorf("the other namespace has\n%s", out)
	}
	if out := kt.Run(t, "ip", "-o", "link"); !strings.Contains(out, "one@two") {
		t.Errorf("the test is not where it was:\n%s", out)
	}
	one, two := kt.Open(t, "one"), kt.Open(t, "two")
	frame := pt.UDP4(pt.Packet{SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.Broadcast()})
	one.Send(frame)
	b := two.Receive(20 * time.Second)
	for b != nil && !bytes.Equal(b, frame) {
		b = two.Receive(20 * time.Second)
	}
	if b == nil {
		t.Error("the frame did not come")
	}
}
