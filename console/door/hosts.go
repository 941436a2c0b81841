package door

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are the names that requests at a door may be for. A page in somebody's
// browser can have its own name lead to this host (DNS rebinding) and would then read
// what is here; the name that the browser sends tells.
type Hosts struct {
	Key   string   // of the configuration, for the answer
	Names []string // in small letters, without ports
}

// allows reports whether a request for host is one of ours: a name of loopback, the
// address at which it came in, or one of the list. Who sends none is no browser.
func (h Hosts) allows(host string, local net.Addr) bool {
	name := hostname(host)
	if host == "" || name == "localhost" || slices.Contains(h.Names, name) {
		return true
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	if tcp, ok := local.(*net.TCPAddr); ok && tcp.AddrPort().Addr().Unmap().WithZone("") == a {
		return true
	}
	return a.IsLoopback()
}

// hostname takes the port, the brackets and a final dot away.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// maxName bounds what is told of a name that somebody asks for.
const maxName = 100

// onlyFor answers requests for other hosts with 421 and what to do, and counts them.
func (d *Door) onlyFor(hosts func() Hosts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		h := hosts()
		if h.allows(r.Host, local) {
			next.ServeHTTP(w, r)
			return
		}
		name := hostname(r.Host)
		name = name[:min(len(name), maxName)]
		d.mu.Lock()
		d.refuseLocked(OtherName)
		d.mu.Unlock()
		from, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address of a local socket
		d.tell(OtherName, from.Addr().Unmap().WithZone(""), name)
		w.Header().Set("Connection", "close")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusMisdirectedRequest)
		fmt.Fprintf(w, "This agent answers to localhost, to the address it listens on, and to the names in %s of its configuration; %q is none of them.\n"+
			"If you asked for it by that name, add the name there and reload the agent.\n", h.Key, name)
	})
}
