package agent

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
)

// interfaceNames returns the names of this host's interfaces: of the view that is
// kept up to date, or asked of the kernel; what cannot be read is none.
func (a *Agent) interfaceNames() []string {
	if a.links != nil {
		return a.links.View().Names()
	}
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, f := range list {
		out = append(out, f.Name)
	}
	return out
}

// host returns the interfaces of this host; what cannot be read is none.
func (a *Agent) host() *provision.Interfaces {
	if a.links != nil {
		return a.links.View()
	}
	view, _ := link.Interfaces(link.WatchOptions{})
	return view
}

// warnOfInterfaces tells of names in the configuration that no interface has now.
func (a *Agent) warnOfInterfaces(cfg *config.Config) {
	for _, w := range a.interfaceWarnings(cfg) {
		logWarning(w, a.log)
	}
	for _, w := range cfg.GuardWarnings(a.path, a.hostList()) {
		logWarning(w, a.log)
	}
}

// hostList is host as a list.
func (a *Agent) hostList() []provision.Interface {
	view := a.host()
	out := make([]provision.Interface, 0, view.Len())
	for _, f := range view.All() {
		out = append(out, *f)
	}
	return out
}

// interfaceWarnings are what to tell of the names in a configuration on this host as it is now.
func (a *Agent) interfaceWarnings(cfg *config.Config) []keys.Problem {
	if a.links != nil {
		view := a.links.View()
		return cfg.InterfaceWarnings(view.Names(), view.AltNames())
	}
	if view, err := link.Interfaces(link.WatchOptions{}); err == nil {
		return cfg.InterfaceWarnings(view.Names(), view.AltNames())
	}
	return cfg.InterfaceWarnings(a.interfaceNames(), nil)
}

// ownAddresses returns the addresses of this host; what cannot be read is none.
func ownAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// forwardsMulticast reports whether a multicast routing daemon runs in the network
// namespace: the kernel sets this for one and nobody else can.
func forwardsMulticast() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/mc_forwarding")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}
