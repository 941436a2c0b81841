package agent

import (
	"net"
	"net/netip"

	"github.com/usher-agent/usher/config"
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

// warnOfInterfaces tells of names in the configuration that no interface has now.
func (a *Agent) warnOfInterfaces(cfg *config.Config) {
	for _, w := range cfg.InterfaceWarnings(a.interfaceNames()) {
		logWarning(w, a.log)
	}
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
