// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"math/rand/v2"
	"testing"
)

// probes are rulesets about one thing each: what nft(8) users stumble over, and what
// random rulesets don't have. All are of tables "inet t" with a chain at forward.
func probes() map[string]string {
	forward := func(rules string) string {
		return "\nchain f { type filter hook forward priority 0; policy accept\n" + rules + "\n}\n"
	}
	return map[string]string{
		"flags by bit and by value": forward(`
			tcp flags syn,ack counter
			tcp flags { syn, ack } counter
			tcp flags syn counter
			tcp flags == syn counter
			tcp flags != syn counter
			tcp flags & (fin | syn | rst | ack) == syn counter
			tcp flags & (syn | ack) != 0 counter
			tcp flags ! fin,rst counter`),
		"later registered runs first": `
			chain a { type filter hook forward priority 0; meta mark set 1; }
			chain b { type filter hook forward priority 0; meta mark 1 counter; meta mark 0 counter; meta mark set 2; }`,
		"accept ends one base chain": `
			chain a { type filter hook forward priority 0; accept; }
			chain b { type filter hook forward priority 1; counter; udp dport 53 drop; counter; }`,
		"goto returns to the caller": `
			chain c { counter; }
			chain b { goto c; counter; }
			chain a { counter; jump b; counter; }` + forward("jump a\ncounter\ngoto a\ncounter"),
		"return in a base chain": `chain f { type filter hook forward priority 0; policy drop; tcp dport 1-100 return; counter accept; }`,
		"not equal implies the family": forward(`
			ip saddr != 10.0.0.2 counter
			ip6 saddr != fd00::2 counter`),
		"no device, empty name": `
			chain p { type filter hook prerouting priority 0; oifname != "m1" counter; oifname "m1" counter; oif 0 counter; iifname != "m1" counter; }`,
		"side effects stay": forward(`
			meta mark set 7 udp dport 9 drop
			meta mark 7 counter
			counter tcp sport 53 counter meta mark 7 counter`),
		"vmap, continue and catch-all": `
			map v { type inet_service : verdict; elements = { 22 : continue, 53 : drop, * : jump c } }
			chain c { counter; }` + forward(`
			tcp dport vmap @v counter
			udp dport vmap @v counter
			th dport vmap { 80 : continue, 443 : return, 1000 : goto c } counter
			counter`),
		"catch-all in a set": `
			set s { type inet_service; elements = { 22, 80, * } }` + forward(`
			tcp dport @s counter
			tcp dport != @s counter`),
		"map misses end the rule": `
			map m { type ipv4_addr : mark; elements = { 10.0.0.2 : 2, 10.0.0.3 : 3, 10.0.1.4 : 4 } }` + forward(`
			meta mark set ip saddr map @m counter
			meta mark 2 counter
			meta mark set ip daddr map { 10.0.1.2 : 9, 10.0.0.0/29 : 8 } counter
			meta mark 8 counter`),
		"intervals in maps": `
			map m { type inet_service : mark; flags interval; elements = { 1-79 : 1, 80 : 2, 81-65535 : 3 } }` + forward(`
			meta mark set th dport map @m
			meta mark 1 counter
			meta mark 2 counter
			meta mark 3 counter`),
		"concatenated ranges": `
			set s { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 10.0.0.0/29 . tcp . 1-100, 10.0.1.2-10.0.1.5 . udp . 53, 10.0.0.0/16 . tcp . 1000-1001, 0.0.0.0/0 . udp . 5000 } }` + forward(`
			ip saddr . meta l4proto . th dport @s counter
			ip daddr . meta l4proto . th sport @s counter
			ip daddr . meta l4proto . th sport != @s counter
			ip saddr . tcp dport { 10.0.0.0/16 . 80-443, 10.0.1.3 . 22 } counter`),
		"names in sets": `
			set s { type ifname; elements = { "m0", "m9" } }
			set w { type ifname; flags interval; elements = { "m1*", "x*" } }` + forward(`
			iifname @s counter
			oifname @s counter
			iifname @w counter
			iifname . oifname { "m0" . "m1" } counter
			iifname vmap { "m0" : continue, "m1" : accept } counter`),
		"element counters and limits": `
			set s { type inet_service; counter; elements = { 22, 53, 80 } }
			set l { type inet_service; limit rate 1/day burst 2 packets; elements = { 443, 80 } }` + forward(`
			tcp dport @s counter
			udp dport @s counter
			tcp dport @l counter
			tcp dport != @s counter`),
		"limit per element": `
			set d { type ipv4_addr; size 100; flags dynamic; }` + forward(`
			add @d { ip saddr limit rate 1/day burst 2 packets } counter
			update @d { ip saddr limit rate over 1/day burst 2 packets } counter
			delete @d { ip daddr } counter`),
		"learning what comes with it": `
			map d { type ipv4_addr . inet_service : mark; size 50; flags dynamic; }
			set e { typeof ip saddr . meta mark; size 50; flags dynamic; counter; }` + forward(`
			tcp dport 1-5000 add @d { ip saddr . tcp dport : 5 } counter
			meta mark set ip saddr . tcp dport map @d counter
			add @e { ip saddr . meta mark } counter`),
		"limits": forward(`
			limit rate 3/day counter
			limit rate over 3/day burst 4 packets counter
			limit rate 100 bytes/day burst 300 bytes counter
			limit rate over 100 bytes/day burst 300 bytes counter`),
		"quotas": forward(`
			quota 300 bytes counter
			quota over 300 bytes counter
			tcp dport 1-5000 quota 500 bytes used 100 bytes counter`),
		"numgen": forward(`
			meta mark set numgen inc mod 3
			meta mark 0 counter
			meta mark 1 counter
			meta mark set numgen inc mod 2 offset 5
			meta mark 5 counter
			meta mark 6 counter
			numgen inc mod 4 vmap { 0 : continue, 1 : accept, 2-3 : continue } counter`),
		"jhash": `
			set h { typeof meta mark; size 500; flags dynamic; }` + forward(`
			meta mark set jhash ip saddr mod 100000 seed 0xdeadbeef add @h { meta mark }
			meta mark set jhash ip saddr . ip daddr mod 100000 seed 0x1 add @h { meta mark }
			meta mark set jhash ip saddr . tcp dport . ip daddr mod 100000 seed 0x7 offset 3 add @h { meta mark }
			meta mark set jhash ip6 saddr . tcp sport mod 100000 seed 0x7 add @h { meta mark }`),
		"bits of marks": forward(`
			meta mark set 0x12345678
			meta mark and 0xff00 == 0x5600 counter
			meta mark or 0x1 == 0x12345679 counter
			meta mark set meta mark and 0xffff
			meta mark 0x5678 counter
			meta mark set meta mark << 4
			meta mark 0x56780 counter
			meta mark set meta mark >> 8
			meta mark 0x567 counter
			meta mark & 0x7 == { 1, 7 } counter`),
		"ct marks and directions": forward(`
			ct state new ct mark set meta mark or 0x5 counter
			ct mark 5 counter
			ct direction reply ct mark set ct mark or 0x10 counter
			ct mark 0x15 counter
			ct original ip saddr 10.0.0.0/24 counter
			ct original ip daddr 10.0.0.2-10.0.0.5 counter
			ct reply ip6 saddr fd00::/64 counter
			meta l4proto tcp ct original proto-dst 80 counter
			ct l3proto ipv6 counter
			ct status assured counter
			ct status ! seen-reply counter`),
		"notrack": `
			chain r { type filter hook prerouting priority -300; udp dport 53 notrack; tcp sport 80 notrack; }
			chain l { type filter hook prerouting priority 0; tcp dport 80 notrack; }` + forward(`
			ct state untracked counter
			ct state invalid counter
			ct mark 0 counter
			ct state new,established counter`),
		"rewriting": forward(`
			ip dscp set ef ip dscp ef counter
			ip6 dscp set cs1 ip6 dscp cs1 counter
			ip ttl set 3
			ip6 hoplimit set 200
			tcp dport 80 tcp dport set 8080
			tcp dport 8080 counter
			udp sport 443 udp sport set 7
			ip ecn set ect0
			ip id set 77
			ip6 flowlabel set 99`),
		"raw payload": forward(`
			@nh,0,4 4 counter
			@nh,72,8 6 counter
			@th,0,16 1-1000 counter
			@th,16,16 { 22, 80 } counter
			@nh,96,32 0x0a000002 counter
			@nh,100,12 0xa00 counter`),
		"lengths and protocols": forward(`
			meta length 40-60 counter
			meta length > 80 counter
			meta protocol ip counter
			meta protocol { ip6, arp } counter
			meta l4proto { tcp, icmp } counter
			ip protocol udp counter
			ip6 nexthdr != tcp counter
			ip length < 60 counter
			ip version 4 ip hdrlength 5 counter
			ip frag-off & 0x1fff == 0 counter
			ip frag-off & 0x4000 != 0 counter`),
		"icmp": forward(`
			icmp type echo-request counter
			icmp type { echo-reply, destination-unreachable } counter
			icmpv6 type echo-request counter
			icmp id 20000-21000 counter
			icmp code 0 counter
			icmpv6 id != 3 counter`),
		"routes": forward(`
			fib daddr type unicast counter
			fib saddr type { local, broadcast } counter
			fib saddr . iif oif != 0 counter
			fib saddr . iif oif exists counter
			fib saddr oifname "m0" counter
			fib daddr oifname "m1" counter
			fib saddr . mark oif missing counter`),
		"labels": forward(`
			ct state new ct label set 5
			ct label 5 counter
			ct label 7 counter
			ct direction reply ct label set 7
			ct label 7 counter`),
		"anonymous chains": forward(`
			tcp dport 1-1000 jump {
				counter
				tcp dport 22 counter return
				tcp dport 80 counter accept
				counter
			}
			counter`),
		"priorities across families": `
			chain x { type filter hook forward priority filter + 5; meta mark 3 counter; }
			chain y { type filter hook forward priority mangle; meta mark set 3; }`,
		"pair comparisons": forward(`
			ip saddr . tcp dport { 10.0.0.2 . 22-80 } counter
			ip saddr . ip daddr != { 10.0.0.2 . 10.0.1.2 } counter`),
	}
}

func TestProbesAreTheKernel(t *testing.T) {
	k := newKernel(t)
	for name, text := range probes() { // no subtests: they would be in another thread's namespace
		t.Log(name)
		r := rand.New(rand.NewPCG(9, 9))
		tr := trial{text: "table inet t {\n" + text + "\n}\n"}
		c := newConversations(r, "inet", 20000)
		for range 150 {
			frame, in := c.next()
			tr.shots = append(tr.shots, shot{frame, in})
		}
		if difference, _ := k.play(&tr); difference != "" {
			t.Fatalf("%s\n%s", difference, tr.text)
		}
	}
	if !t.Failed() {
		t.Logf("%d probes of 150 packets", len(probes()))
	}
}
