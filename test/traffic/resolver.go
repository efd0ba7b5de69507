// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"

	"sluice/test/traffic/report"
)

// resolver answers names of world.test, over UDP and TCP, until it is ended. Every
// name has the address 198.51.100.7, but for those that begin with a word:
//
//	none-…    there is no such name
//	big-…     a text of 3000 bytes
//	both-…    IPv6, too
//	small-…   the name is given back in small letters
//	fail-…    SERVFAIL
func resolver(ctx context.Context, args []string) (any, error) {
	f := flags("resolver")
	listen := f.String("listen", "", "address:port")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var asked atomic.Uint64
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		_ = w.WriteMsg(resolve(q, udp))
	})
	started := make(chan struct{}, 2)
	ended := make(chan error, 2)
	servers := []*dns.Server{{Addr: *listen, Net: "udp", Handler: h}, {Addr: *listen, Net: "tcp", Handler: h}}
	for _, s := range servers {
		s.NotifyStartedFunc = func() { started <- struct{}{} }
		go func() { ended <- s.ListenAndServe() }()
	}
	for range servers {
		select {
		case <-started:
		case err := <-ended:
			return nil, err
		}
	}
	ready()
	select {
	case <-ctx.Done():
	case err := <-ended:
		return nil, err
	}
	for _, s := range servers {
		_ = s.Shutdown()
	}
	return report.Answers{Questions: asked.Load()}, nil
}

func resolve(q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	fill(m)
	if opt := q.IsEdns0(); udp {
		size := dns.MinMsgSize
		if opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	return m
}

// fill answers the question of a message.
func fill(m *dns.Msg) {
	name := m.Question[0].Name
	add := func(format string, args ...any) {
		if rr, err := dns.NewRR(name + " 300 IN " + fmt.Sprintf(format, args...)); err == nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	word, _, _ := strings.Cut(strings.ToLower(name), "-")
	switch qtype := m.Question[0].Qtype; {
	case word == "fail":
		m.Rcode = dns.RcodeServerFailure
		return
	case word == "none":
		m.Rcode = dns.RcodeNameError
	case word == "big" && qtype == dns.TypeTXT:
		for i := range 30 {
			add("TXT %q", fmt.Sprintf("%02d%s", i, strings.Repeat("x", 98)))
		}
	case qtype == dns.TypeA:
		add("A 198.51.100.7")
	case qtype == dns.TypeAAAA && word == "both":
		add("AAAA 2001:db8::7")
	}
	if len(m.Answer) == 0 {
		if rr, err := dns.NewRR("world.test. 300 IN SOA ns.world.test. root.world.test. 1 2 3 4 60"); err == nil {
			m.Ns = append(m.Ns, rr)
		}
	}
	if word == "small" {
		m.Question[0].Name = strings.ToLower(name)
	}
}
