// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/test/lab"
)

// World is what people use: a web server, iperf3 and a name server behind a NAT, called
// by many containers at the same time, by both families; and by others that have no IPv4
// and call the servers' IPv4 by NAT64.
type World struct {
	Kind       Kind
	Containers int // with both families
	SixOnly    int
}

// servers64 is the world's IPv4 address in the prefix of NAT64.
const servers64 = "64:ff9b::c000:202"

// iperfPort is that of the first container's server of iperf3, which has one client.
const iperfPort = 5201

// Run calls everything from all containers.
func (x World) Run(t lab.T) {
	t.Helper()
	w := newWay64(t, x.Kind)
	page, meters := w.serveWorld(x.Containers + x.SixOnly)
	for _, n := range []*lab.NS{w.World, w.Host} { // one address asks for all of them
		n.Run("sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
		n.Try("sysctl", "-q", "-w", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=100000") // where it is the namespace's
	}
	script := w.File("calls.sh", calls())
	type end struct {
		name string
		r    lab.Result
	}
	ends := make([]end, x.Containers+x.SixOnly)
	var wg sync.WaitGroup
	for i := range ends {
		name, network, whom := fmt.Sprintf("box%d", i), "web", []string{w.World.IP(lab.V4).String(), w.World.IP(lab.V6).String()}
		if i >= x.Containers {
			network, whom = sixOnly, []string{servers64}
		}
		n := w.NS(name).Attach("--network", network, "--name", name)
		p := n.Start(append([]string{"bash", script, page, strconv.Itoa(iperfPort + i)}, whom...)...)
		wg.Go(func() { ends[i] = end{n.Name(), p.Wait(2 * time.Minute)} })
	}
	wg.Wait()
	for i, e := range ends {
		if e.r.Code != 0 {
			t.Errorf("%s, %s: exit code %d\n%s%s\nits server:\n%s", x.Kind.Name, e.name, e.r.Code, e.r.Out, e.r.Err, meters[i].Output())
		}
	}
}

// serveWorld starts the servers, and returns the hash of the page, and those of iperf3.
func (w *Way) serveWorld(clients int) (sum string, meters []*lab.Proc) {
	page := w.File("index.html", strings.Repeat("what the world has to say\n", 40_000))
	conf := w.File("nginx.conf", fmt.Sprintf(`user root;
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body; proxy_temp_path %[1]s/nginx-proxy; fastcgi_temp_path %[1]s/nginx-fcgi;
  uwsgi_temp_path %[1]s/nginx-uwsgi; scgi_temp_path %[1]s/nginx-scgi;
  server { listen 80; listen [::]:80; root %[1]s; }
}
`, w.Dir()))
	sum, _, _ = strings.Cut(w.Run("sha256sum", page), " ")
	web := w.World.Start("nginx", "-e", filepath.Join(w.Dir(), "nginx.log"), "-c", conf)
	dns := w.World.Start("dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--log-facility=-",
		"--address=/world.example/192.0.2.2", "--address=/world.example/2001:db8::2", "--pid-file="+filepath.Join(w.Dir(), "dns.pid"))
	for i := range clients {
		meters = append(meters, w.World.Start("iperf3", "-s", "-p", strconv.Itoa(iperfPort+i)))
	}
	w.Eventually("nginx, dnsmasq and iperf3 listen", 20*time.Second, func() bool {
		if web.Ended() || dns.Ended() {
			w.Fail("nginx: %s\ndnsmasq: %s", web.Output(), dns.Output())
			return true
		}
		out := w.World.Run("ss", "-Hltn")
		return strings.Contains(out, ":80 ") && strings.Contains(out, ":53 ") && strings.Contains(out, fmt.Sprintf(":%d ", iperfPort+clients-1))
	})
	return sum, meters
}

// calls is what each container does: page, port of iperf3, addresses of the world.
func calls() string {
	return `set -eu -o pipefail
page=$1; port=$2; shift 2
fail() { echo "$@" >&2; exit 1; }
iperf() { # its server needs a moment between two tests
  for n in 1 2 3 4 5 6 7 8; do
    out=$(iperf3 -p "$port" --connect-timeout 10000 -c "$@" 2>&1) && return
    case $out in *busy*|*refused*|*"reset by peer"*) sleep 0.3;; *) break;; esac
  done
  fail "iperf3 $*: $out"
}
for to in "$@"; do
  url=$to; case $to in *:*) url="[$to]";; esac
  for n in 1 2 3; do
    sum=$(curl -sS --max-time 30 "http://$url/index.html" | sha256sum)
    [ "${sum%% *}" = "$page" ] || fail "curl $url: another page"
  done
  iperf "$to" -n 4M
  iperf "$to" -n 4M -R
  iperf "$to" -u -b 5M -t 1
  [ "$(dig +short +time=10 "@$to" world.example A)" = 192.0.2.2 ] || fail "dig @$to"
  [ "$(dig +short +time=10 +tcp "@$to" world.example AAAA)" = 2001:db8::2 ] || fail "dig +tcp @$to"
  for n in 1 2 3 4; do # whose answer is late on a busy machine counts as lost
    out=$(ping -n -c 3 -i 0.2 -W 5 "$to") && case $out in *" 0% packet loss"*) break;; esac
    [ $n != 4 ] || fail "ping $to: $out"
  done
  out=$(traceroute -n -q 1 -w 5 "$to") || fail "traceroute $to"
  case $out in *"  $to  "*) ;; *) fail "traceroute $to: $out";; esac
  out=$(tracepath -n "$to") || fail "tracepath $to"
  case $out in *"Resume: pmtu 1500"*) ;; *) fail "tracepath $to: $out";; esac
done
`
}
