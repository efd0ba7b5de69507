// SPDX-License-Identifier: Apache-2.0

package e2e

// plays are those of the rulesets in testdata/rulesets.
func plays() []play {
	return []play{
		{file: "every-hook.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn => out 10.91.0.2:5000 > 10.90.0.2:80
			out answers => in
			in answers times=5 => out
			out answers times=4 => in
			in udp 10.91.0.2:6000 > 10.90.0.2:80 times=3 => out
			out answers times=5 => in
			in udp 10.91.0.2:6000 > 10.90.0.2:80 times=6 => out
			in udp 10.91.0.2:5000 > 10.90.0.1:7 => in icmp type 3 code 3
			in ping 10.91.0.2 > 10.91.0.1 => in icmp type 0
			in ping 10.91.0.2 > 10.90.0.1 => in icmp type 0
			in ping fd91::2 > fd91::1 => in icmp type 129
			in tcp [fd91::2]:5000 > [fd90::2]:443 syn => out
			out answers => in
			in udp 10.91.0.2:5000 > 10.91.0.3:80 => in2
			in udp 10.91.0.2:5000 > 10.90.0.2:80 ttl=1 => in icmp type 11 code 0
			in tcp 10.91.0.2:5000 > 10.91.0.1:81 syn => in tcp RST`},
		{file: "load-balancing.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.90.0.1:80 syn => c1 10.90.0.2:5000 > 10.92.0.2:80
			out tcp 10.90.0.2:5001 > 10.90.0.1:80 syn => c2 > 10.92.0.3:80
			c2 answers => out 10.90.0.1:80 > 10.90.0.2:5001
			c1 answers => out 10.90.0.1:80 > 10.90.0.2:5000
			out answers => c1
			out tcp 10.90.0.2:5002 > 10.90.0.1:80 syn => c1
			out tcp 10.90.0.2:5003 > 10.90.0.1:80 syn => c2
			out tcp 10.90.0.2:5003 > 10.90.0.1:80 syn => c2
			out tcp 10.90.0.2:5010 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5011 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5012 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5013 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5014 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5015 > 10.90.0.1:81 syn => c1
			out tcp 10.90.0.2:5016 > 10.90.0.1:81 syn => c2
			out tcp 10.90.0.2:5020 > 10.90.0.1:82 syn => c1 > 10.92.0.2:4040
			out tcp 10.90.0.2:5021 > 10.90.0.1:82 syn => c1 > 10.92.0.2:4050
			c1 answers => out 10.90.0.1:82 >
			out tcp 10.90.0.2:5030 > 10.90.0.1:83 syn => c
			out2 tcp 10.90.0.3:5030 > 10.90.0.1:83 syn => c
			in tcp 10.91.0.2:5030 > 10.90.0.1:83 syn => c
			in tcp 10.91.0.3:5030 > 10.90.0.1:83 syn => c
			out tcp 10.90.0.2:5040 > 10.90.0.1:84 syn => c1
			out tcp 10.90.0.2:5041 > 10.90.0.1:84 syn => c2
			out tcp 10.90.0.2:5042 > 10.90.0.1:84 syn => pod1
			out udp 10.90.0.2:5000 > 10.90.0.1:53 => c1 10.90.0.2:5000 > 10.92.0.2:53
			c1 answers => out 10.90.0.1:53 > 10.90.0.2:5000
			out udp 10.90.0.2:5000 > 10.90.0.1:53 => c2
			out udp 10.90.0.2:5000 > 10.90.0.1:53 => c1
			in udp 10.91.0.2:5000 > 10.90.0.2:5300 => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:8000 syn => c2 10.91.0.2:5000 > 10.92.0.3:8001
			in tcp 10.91.0.2:5000 > 10.90.0.2:8000 syn => c2 > 10.92.0.3:8002`},
		{file: "nat-maps.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.90.0.1:1000 syn => c1 > 10.92.0.2:1234
			c1 answers => out 10.90.0.1:1000 >
			out tcp 10.90.0.2:5001 > 10.90.0.1:2000 syn => c2 > 10.92.0.3:2345
			out tcp 10.90.0.2:5002 > 10.90.0.1:3000 syn => pod1 > 10.93.0.2:3456
			out tcp 10.90.0.2:5003 > 10.91.0.2:4000 syn => in > 10.91.0.2:4000
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn => out 10.90.0.100:5000 > 10.90.0.2:80
			out answers => in 10.90.0.2:80 > 10.91.0.2:5000
			in answers => out 10.90.0.100:5000 >
			in2 udp 10.91.0.3:5000 > 10.90.0.2:53 => out 10.90.0.101:5000 >
			in ping 10.91.0.2 > 10.90.0.2 => out 10.90.0.100 > 10.90.0.2 icmp
			out answers => in
			out tcp 10.90.0.2:5004 > 10.90.0.66:22 syn => c1 > 10.92.0.2:22
			c1 answers => out 10.90.0.66:22 >
			out tcp 10.90.0.2:5005 > 10.90.0.67:22 syn => c2 > 10.92.0.3:22
			pod1 udp 10.93.0.2:5000 > 10.90.0.2:53 ~> out 10.90.0.102:any
			pod1 udp 10.93.0.2:5000 > 10.90.0.2:53 ttl=1 => pod1 icmp type 11`},
		{file: "sets-and-maps.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.92.0.2:22 syn times=5 => c1
			out2 tcp 10.90.0.3:5000 > 10.92.0.2:124 syn => out2 tcp R
			out tcp 10.90.0.70:5000 > 10.92.0.2:22 syn => -
			out tcp 10.90.0.200:5000 > 10.92.0.2:22 syn => -
			in tcp 10.91.0.2:5000 > 10.92.0.2:22 syn => c1
			in tcp 10.91.0.2:5000 > 10.92.0.2:22 syn => c1
			in2 tcp 10.91.0.3:5000 > 10.92.0.3:2000 syn => c2
			c1 tcp 10.92.0.2:5000 > 10.93.0.2:443 syn => c1 tcp R
			pod1 tcp 10.93.0.2:5000 > 10.92.0.3:2000 syn => -
			pod1 tcp 10.93.0.2:5000 > 10.92.0.2:1000 syn => c1
			pod1 tcp 10.93.0.2:5000 > 10.92.0.2:2000 syn => -
			pod1 udp 10.93.0.2:5000 > 10.92.0.2:123 => c1
			out udp 10.90.0.2:123 > 10.92.0.2:123 => c1`},
		{file: "workstation.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.91.0.1:22 syn => in tcp RST
			in tcp 10.91.0.2:5000 > 10.91.0.1:23 syn => -
			in tcp 10.91.0.2:5001 > 10.90.0.1:443 syn => in tcp RST
			in udp 10.91.0.2:5000 > 10.91.0.1:53 => -
			in ping 10.91.0.2 > 10.91.0.1 => in icmp type 0
			in ping 10.91.0.2 > 10.91.0.1 id=78 => in icmp type 0
			in ping 10.91.0.2 > 10.91.0.1 id=79 => -
			in ping 10.91.0.2 > 10.91.0.1 id=78 => in icmp type 0
			in ping fd91::2 > fd91::1 => in icmp type 129
			in ping fd91::2 > fd91::1 id=80 => in icmp type 129
			in tcp [fd91::2]:5000 > [fd91::1]:80 syn => -
			in tcp 10.91.0.2:5000 > 10.92.0.2:23 syn => c1`},
		{file: "overview.nft", lines: `
			c1 tcp 10.92.0.2:5000 > 10.90.0.2:1 syn => c1 icmp type 3 code 3
			c1 udp 10.92.0.2:5000 > 10.90.0.2:1 => c1 icmp type 3 code 3
			c1 udp [fd92::2]:5000 > [fd90::2]:1 => c1 icmp type 1 code 4
			in udp 10.91.0.2:5000 > 10.90.0.2:2 => in icmp type 3 code 1
			in udp [fd91::2]:5000 > [fd90::2]:2 => in icmp type 1 code 0
			in udp 10.91.0.2:5000 > 10.90.0.2:3 => in icmp type 3 code 13
			in udp [fd91::2]:5000 > [fd90::2]:3 => in icmp type 1 code 1
			in tcp 10.91.0.2:5000 > 10.90.0.2:4 syn => in 10.90.0.2:4 > 10.91.0.2:5000 tcp RST
			in tcp [fd91::2]:5000 > [fd90::2]:4 ack => in tcp R
			in tcp 10.91.0.2:5000 > 10.90.0.2:5 syn => -
			in tcp 10.91.0.2:5000 > 10.90.0.2:6 syn => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:7 syn => -
			in udp 10.91.0.2:5000 > 10.90.0.2:50 ttl=5 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:50 ttl=6 => out
			in udp [fd91::2]:5000 > [fd90::2]:50 ttl=5 => -
			in tcp 10.91.0.2:5001 > 10.90.0.2:60 syn,fin => -
			in tcp 10.91.0.2:5001 > 10.90.0.2:60 syn,ack => -
			out udp 10.92.0.9:5001 > 10.91.0.2:60 => -`},
		{file: "home-router.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn => out 10.90.0.1:5000 > 10.90.0.2:80
			out answers => in 10.90.0.2:80 > 10.91.0.2:5000
			in answers times=5 => out
			out answers times=5 => in
			in2 tcp 10.91.0.3:5000 > 10.90.0.2:80 syn ~> out 10.90.0.1:any
			c1 udp 10.92.0.2:5000 > 198.51.100.1:53 => out 10.90.0.1:5000 > 198.51.100.1:53
			out answers => c1
			in ping 10.91.0.2 > 198.51.100.1 => out 10.90.0.1 > 198.51.100.1
			out answers => in
			pod1 udp 10.93.0.2:5000 > 198.51.100.1:53 => -
			out tcp 10.90.0.2:6000 > 10.91.0.2:80 syn => -
			out tcp 10.90.0.2:6000 > 10.91.0.2:22 syn => -
			out tcp 10.90.0.2:6001 > 10.90.0.1:443 syn => in > 10.91.0.2:443
			in answers => out 10.90.0.1:443 >
			out udp 10.90.0.2:6000 > 10.90.0.1:5003 => in2 > 10.91.0.3:
			out ping 10.90.0.2 > 10.90.0.1 => out icmp type 0
			out ping 10.90.0.2 > 10.90.0.1 id=1 => out icmp type 0
			out tcp 10.90.0.2:6000 > 10.90.0.1:22 syn => out tcp RST
			out tcp 10.90.0.2:6001 > 10.90.0.1:22 syn => out tcp RST
			out tcp 10.90.0.2:6002 > 10.90.0.1:22 syn => -
			out tcp 10.90.0.2:6003 > 10.90.0.1:22 syn => -
			out tcp 10.90.0.2:6003 > 10.90.0.1:23 syn => -
			in udp 10.91.0.2:5000 > 10.91.0.1:53 => in icmp type 3 code 3
			in udp 10.91.0.2:5001 > 10.92.0.1:53 => -
			in udp 10.91.0.2:5001 > 10.91.0.1:54 => -
			in tcp [fd91::2]:5000 > [fd90::2]:80 syn => out [fd90:0:0:91::2]:5000 >
			out answers => in > [fd91::2]:5000
			out ping fd90::2 > fd90::1 => -
			in ping fd91::2 > fd91::1 => in icmp type 129`},
		{file: "frames.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.91.0.3:23 syn => -
			in tcp 10.91.0.2:5000 > 10.91.0.3:24 syn => in2
			in udp 10.91.0.2:68 > 10.91.0.3:67 => -
			in2 udp 10.91.0.3:68 > 10.91.0.2:67 => in
			in ping 10.91.0.2 > 10.91.0.3 => in2
			in2 answers => in
			in udp 10.91.0.2:5000 > 10.92.0.3:80 => -
			in udp 10.91.0.2:5000 > 10.92.0.2:80 times=5 => c1
			in udp 10.91.0.2:5000 > 10.92.0.2:99 times=5 => -
			in udp 10.91.0.2:5000 > 10.91.0.3:99 => in2
			out udp 127.0.0.1:5000 > 10.91.0.2:80 => -
			out udp 192.168.3.4:5000 > 10.91.0.2:80 => -
			out udp 192.0.2.4:5000 > 10.91.0.2:80 => in
			out tcp 10.90.0.2:5000 > 10.91.0.2:80 => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:25 syn => -
			out tcp 10.90.0.2:5000 > 10.91.0.3:25 syn => in2
			out tcp 10.90.0.2:5000 > 10.90.0.3:25 syn => out2`},
		{file: "firewalld.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn => out 10.90.0.1:5000 > 10.90.0.2:80
			out answers => in
			in answers => out
			in udp 10.91.0.2:5000 > 10.92.0.2:53 => c1 10.92.0.1:5000 >
			c1 answers => in 10.92.0.2:53 > 10.91.0.2:5000
			out tcp 10.90.0.2:6000 > 10.90.0.1:8080 syn => in 10.90.0.2:6000 > 10.91.0.2:80
			in answers => out 10.90.0.1:8080 >
			out tcp 10.90.0.2:6001 > 10.90.0.1:8081 syn => out 10.90.0.1:8081 > 10.90.0.2:6001 tcp RST
			out tcp 10.90.0.2:6002 > 10.91.0.2:80 syn => out icmp type 3 code 13
			out tcp 10.90.0.2:6002 > 10.92.0.2:8050 syn => c1
			out udp 10.90.0.2:6002 > 10.92.0.2:8050 => out icmp type 3 code 13
			out ping 10.90.0.2 > 10.92.0.2 => c1
			c1 answers => out
			out ping 10.90.0.2 > 10.90.0.1 => out icmp type 0
			out tcp 10.90.0.2:6003 > 10.90.0.1:22 syn => out tcp RST
			out2 tcp 10.90.0.3:6003 > 10.90.0.1:22 syn => out2 tcp RST
			out tcp 10.90.0.2:6003 > 10.90.0.1:23 syn => out icmp type 3 code 13
			in tcp 10.91.0.2:6003 > 10.90.0.1:23 syn => in tcp RST
			out tcp 10.90.0.2:6004 > 10.92.0.2:8050 ack => c1
			out tcp 10.90.0.2:6005 > 10.92.0.2:8050 syn,ack => -
			out tcp [fd90::2]:6000 > [fd90::1]:8080 syn => in > [fd91::2]:80
			in answers => out [fd90::1]:8080 >
			out tcp [fd91::9]:6000 > [fd90::1]:22 syn => -
			in tcp [fd91::2]:6000 > [2002:a00:1::1]:80 syn => in icmp type 1 code 3
			in tcp [fd91::2]:6000 > [fd90::2]:80 syn => out [fd91::2]:6000 >`},
		{file: "docker-iptables.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.90.0.1:8080 syn => c1 10.90.0.2:5000 > 10.92.0.2:80
			c1 answers => out 10.90.0.1:8080 > 10.90.0.2:5000
			out answers => c1
			c1 answers => out
			in tcp 10.91.0.2:5000 > 10.91.0.1:8080 syn => c1 10.91.0.2:5000 > 10.92.0.2:80
			c1 answers => in 10.91.0.1:8080 >
			out udp 10.90.0.2:5000 > 10.90.0.1:5353 => pod1 > 10.93.0.2:53
			pod1 answers => out 10.90.0.1:5353 >
			out tcp 10.90.0.2:5001 > 10.92.0.2:80 syn => c1
			out tcp 10.90.0.2:5001 > 10.92.0.2:81 syn => -
			out2 tcp 10.90.0.3:5001 > 10.90.0.1:8080 syn => -
			c1 tcp 10.92.0.2:5000 > 198.51.100.1:443 syn => out 10.90.0.1:5000 >
			out answers => c1 198.51.100.1:443 > 10.92.0.2:5000
			c1 answers times=5 => out 10.90.0.1:5000 >
			out answers times=5 => c1
			c2 tcp 10.92.0.3:5000 > 198.51.100.1:443 syn ~> out 10.90.0.1:any
			out answers => c2
			c1 udp 10.92.0.2:5000 > 10.91.0.2:53 => in 10.91.0.1:5000 > 10.91.0.2:53
			c1 tcp 10.92.0.2:6000 > 10.93.0.2:80 syn => -
			pod1 tcp 10.93.0.2:6000 > 10.92.0.2:80 syn => -
			pod1 ping 10.93.0.2 > 198.51.100.1 => out 10.90.0.1 > 198.51.100.1
			out answers => pod1
			c2 tcp 10.92.0.3:7000 > 10.90.0.1:8080 syn => c2 tcp RST
			pod1 tcp 10.93.0.2:7000 > 10.90.0.1:8080 syn => pod1 tcp RST
			in tcp 10.91.0.2:7000 > 10.90.0.2:80 syn => -`},
		{file: "docker-nftables.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.90.0.1:8080 syn => c1 10.90.0.2:5000 > 10.92.0.2:80
			c1 answers => out 10.90.0.1:8080 >
			out answers => c1
			out udp 10.90.0.2:5000 > 10.90.0.1:5353 => pod1 > 10.93.0.2:53
			pod1 answers => out 10.90.0.1:5353 >
			out tcp 10.90.0.2:5001 > 10.92.0.2:80 syn => c1
			out tcp 10.90.0.2:5001 > 10.92.0.2:81 syn => -
			out tcp 10.90.0.2:5001 > 10.92.0.3:80 syn => -
			c1 tcp 10.92.0.2:5000 > 198.51.100.1:443 syn => out 10.90.0.1:5000 >
			out answers => c1
			c1 tcp 10.92.0.2:5000 > 10.92.0.3:443 syn => c2
			c1 tcp 10.92.0.2:5001 > 10.93.0.2:443 syn => -
			pod1 udp 10.93.0.2:5001 > 10.91.0.2:53 => pod1 icmp type 3 code 13
			pod1 udp 10.93.0.2:5001 > 198.51.100.1:53 => out 10.90.0.1:5001 >
			out answers => pod1
			pod1 udp 10.93.0.2:5001 > 10.90.0.1:5353 => pod1 10.93.0.2:5001 > 10.93.0.2:53
			in udp 10.91.0.2:5000 > 10.90.0.2:53 => out`},
		{file: "kube-proxy.nft", lines: `
			pod2 tcp 10.93.0.3:5000 > 172.30.0.41:80 syn => pod1 10.93.0.3:5000 > 10.93.0.2:8080
			pod1 answers => pod2
			pod1 tcp 10.93.0.2:5000 > 172.30.0.41:80 syn ~> pod1 10.93.0.1:any > 10.93.0.2:8080
			pod1 answers => pod1 172.30.0.41:80 > 10.93.0.2:5000
			out tcp 10.90.0.2:5000 > 172.30.0.41:80 syn ~> pod1 10.93.0.1:any > 10.93.0.2:8080
			pod1 answers => out 172.30.0.41:80 > 10.90.0.2:5000
			out answers times=5 ~> pod1
			out tcp 10.90.0.2:5001 > 10.90.0.1:30080 syn ~> pod1 10.93.0.1:any >
			pod1 answers => out 10.90.0.1:30080 > 10.90.0.2:5001
			in2 tcp 10.91.0.3:5001 > 10.90.0.1:30081 syn => in2 icmp type 3 code 3
			in2 tcp 10.91.0.3:5001 > 10.90.0.1:30082 syn => in2 tcp RST
			in2 tcp 10.91.0.3:5002 > 172.30.0.43:80 syn => in2 icmp type 3 code 3
			in udp 10.91.0.2:5002 > 172.30.0.43:53 => -
			in2 tcp 10.91.0.3:5002 > 172.30.0.41:81 syn => in2 icmp type 3 code 3
			in udp 10.91.0.2:5002 > 172.30.0.99:81 => -
			out udp 10.90.0.2:5003 > 172.30.0.42:53 ~> pod 10.93.0.1:any >
			out udp 10.90.0.2:5004 > 172.30.0.42:53 ~> pod 10.93.0.1:any >
			out udp 10.90.0.2:5003 > 172.30.0.42:53 ~> pod
			in tcp 10.91.0.2:5005 > 198.51.100.7:80 syn ~> pod2 10.93.0.1:any > 10.93.0.3:8080
			pod2 answers => in 198.51.100.7:80 >
			out tcp 10.90.0.2:5005 > 198.51.100.7:80 syn => -
			pod1 tcp 10.93.0.2:5005 > 198.51.100.7:80 syn => -
			in tcp 10.91.0.2:5006 > 172.30.0.44:80 syn ~> pod2
			pod2 tcp 10.93.0.3:5007 > 10.91.0.2:80 syn => in 10.93.0.3:5007 >`},
		{file: "limits.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.90.0.2:22 syn => out
			in tcp 10.91.0.2:5001 > 10.90.0.2:22 syn => out
			in tcp 10.91.0.2:5002 > 10.90.0.2:22 syn => -
			in tcp 10.91.0.2:5003 > 10.90.0.2:22 syn => -
			in2 tcp 10.91.0.3:5003 > 10.90.0.2:22 syn => out
			out answers => in2
			in2 answers times=4 => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:25 syn => out
			in tcp 10.91.0.2:5001 > 10.90.0.2:25 syn => out
			in tcp 10.91.0.2:5002 > 10.90.0.2:25 syn => in tcp RST
			in2 tcp 10.91.0.3:5002 > 10.90.0.2:25 syn => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn times=3 => out
			in tcp [fd91::2]:5000 > [fd90::2]:443 syn times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:53 times=2 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:53 times=2 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:54 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:54 times=2 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:55 times=2 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:55 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:56 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:56 times=3 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:57 times=2 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:57 times=2 => -
			in udp 10.91.0.2:5000 > 10.90.0.2:58 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:58 => -
			in ping 10.91.0.2 > 10.90.0.2 times=2 => out
			in ping 10.91.0.2 > 10.90.0.2 times=2 => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:1022 syn => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:1002 syn => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:1001 syn => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:1002 syn => -
			out tcp 10.90.0.2:5001 > 10.91.0.2:1022 syn => -
			out tcp 10.90.0.2:5000 > 10.91.0.2:1003 syn => -
			out tcp 10.90.0.2:5001 > 10.91.0.2:1022 syn times=2 => in
			out2 tcp 10.90.0.3:5001 > 10.91.0.2:1022 syn => -`},
		{file: "marks.nft", lines: `
			out tcp 10.90.0.2:5000 > 10.90.0.1:8000 syn => c1 10.92.0.1:5000 > 10.92.0.2:80
			c1 answers => out 10.90.0.1:8000 >
			out answers times=3 => c1
			c1 answers times=3 => out
			out2 tcp 10.90.0.3:5001 > 10.90.0.1:8001 syn => c1 10.90.0.3:5001 >
			c1 answers times=2 => out2
			out2 answers times=3 => c1
			in udp 10.91.0.2:5000 > 10.90.0.2:80 times=2 => out 10.90.0.77:5000 >
			out complains => in icmp type 3 code 3
			out answers times=2 => in
			in udp 10.91.0.2:5000 > 10.90.0.2:80 times=3 => out
			in2 udp 10.91.0.3:5000 > 10.92.0.2:9 times=2 => c1
			out udp 10.90.0.2:5000 > 10.90.0.1:7000 times=2 => c2 > 10.92.0.3:7000
			c2 complains => out icmp type 3 code 3
			c2 answers times=2 => out 10.90.0.1:7000 >
			reload
			out answers => c2 > 10.92.0.3:7000
			c2 answers times=2 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:80 times=3 => out 10.90.0.77:5000 >
			out2 answers times=3 => c1
			c1 tcp 10.92.0.2:80 > 10.90.0.9:1 rst => -
			in tcp 10.91.0.2:5009 > 10.92.0.2:4 syn,ack => -`},
		{file: "mangle.nft", lines: `
			in tcp 10.91.0.2:5000 > 10.90.0.2:80 syn mss=1460 => out
			out answers mss=1300 => in
			in tcp 10.91.0.2:5001 > 10.93.0.2:80 syn mss=1460 => pod1
			pod1 answers mss=1460 => in
			in tcp 10.91.0.2:5002 > 10.93.0.2:80 syn mss=900 => pod1
			in tcp 10.91.0.2:5003 > 10.93.0.2:80 syn => pod1
			in tcp [fd91::2]:5001 > [fd93::2]:80 syn mss=1440 => pod1
			in udp 10.91.0.2:5000 > 10.90.0.2:1 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:2 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:3 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:4 times=3 => out 10.91.0.2:5000 > 10.90.0.2:44
			in udp 10.91.0.2:5000 > 10.90.0.2:5 times=3 => out 10.92.0.9:5000 >
			in udp 10.91.0.2:5000 > 10.90.0.2:6 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:7 => out
			in udp [fd91::2]:5000 > [fd90::2]:8 times=3 => out
			in udp [fd91::2]:5000 > [fd90::2]:9 times=3 => out
			in udp [fd91::2]:5000 > [fd90::2]:10 => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:11 ack => out
			in tcp 10.91.0.2:5000 > 10.90.0.2:12 syn => out
			in udp 10.91.0.2:5000 > 10.90.0.2:13 times=3 => out
			in udp 10.91.0.2:5000 > 10.90.0.2:15 times=3 => out`},
		{file: "ipv6-nat.nft", lines: `
			out tcp [fd90::2]:5000 > [fd90::1]:8080 syn => c1 [fd90::2]:5000 > [fd92::2]:80
			c1 answers => out [fd90::1]:8080 >
			out answers times=3 => c1
			out tcp [fd90::2]:5001 > [fd90::1]:8443 syn => pod1 > [fd93::2]:443
			pod1 answers => out
			out udp [fd90::2]:5001 > [fd90::1]:53 times=2 => c2 > [fd92::3]:53
			c2 complains => out icmp type 1 code 4
			in udp [fd91::2]:5001 > [fd90::2]:5000 => in icmp type 1 code 4
			in tcp [fd91::2]:5001 > [fd90::2]:80 syn => out [fd90::1]:5001 >
			out answers => in
			in answers times=3 => out
			in ping fd91::2 > fd90::2 => out fd90::1 > fd90::2
			out answers => in
			c1 udp [fd92::2]:5001 > [fd90::2]:80 => out [fd90::99]:5001 >
			out complains => c1 icmp type 1 code 4
			out answers => c1
			pod1 udp [fd93::2]:5001 > [fd90::2]:80 => out [fd90:2::2]:5001 >
			out answers times=2 => pod1
			out udp [fd90::2]:5002 > [fd90:1::3]:80 => pod2 > [fd93::3]:80
			pod2 answers times=2 => out [fd90:1::3]:80 >
			reload
			out answers times=2 => pod2
			in answers times=2 => out
			out udp [fd90::2]:5002 > [fd91::2]:80 => -`},
	}
}
