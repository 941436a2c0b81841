package config

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/usher-agent/usher/config/keys"
)

// HookCredentialName is the name of the systemd credential that holds the
// secret of the hint endpoint.
const HookCredentialName = "userside-hook-secret"

// minSecret is the least length of the secret in bytes. It is a key of
// HMAC-SHA256: 16 random bytes written in hexadecimal have 32.
const minSecret = 16

// Hooks is the endpoint where the ERP says that a customer changed.
type Hooks struct {
	// An address with a port such as 127.0.0.1:9468, or off. Another address than a
	// loopback one needs a firewall or allow.
	Listen netip.AddrPort `cfg:"listen" read:"listen_or_off" default:"off" like:"127.0.0.1:9468" restart:"true"` // invalid: off

	// A file with the shared secret alone in it, at least 16 characters, not readable
	// for everybody (example). When it is left out, or belongs to root alone, the
	// systemd credential "userside-hook-secret" of the unit is used.
	SecretFile string `cfg:"secret_file" read:"secret"` // empty: nothing stays of it but Secret
	Secret     Secret // resolved from secret_file or the credential; empty when off

	// How far the clocks of the ERP and of this host may be apart. 5s to 10m.
	Window time.Duration `cfg:"window" default:"1m" min:"5s" max:"10m"` // between the request's time and ours, in both directions

	// Prefixes or addresses of callers. Empty: whoever reaches it and has the secret.
	Allow []netip.Prefix `cfg:"allow" read:"network"`

	// Names by which the ERP calls it, as console.hosts.
	Hosts []string `cfg:"hosts" read:"host"`
}

func (l *loader) hooksTogether(m keys.Mapping, h *Hooks) {
	if !h.Listen.IsValid() && !m.Wrong("listen") {
		return
	}
	h.Secret = l.hookSecret(m.Get("secret_file"))
	if h.Listen.IsValid() && !h.Listen.Addr().IsLoopback() && len(h.Allow) == 0 {
		m.Get("listen").Warn("not a loopback address: name the ERP's address in hooks.allow, or let a firewall decide who may call")
	}
}

// network reads a prefix of IPv4 or IPv6, or one address.
func network(v keys.Value) (netip.Prefix, bool) {
	s, ok := v.Raw("a prefix or an address")
	if !ok {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		v.Problem("want a prefix such as 192.0.2.0/24 or an address, got %q", keys.Excerpt(s))
	case p != p.Masked():
		v.Problem("%s has host bits set, did you mean %s?", p, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// host reads the name of a host, or an address, without a port.
func host(v keys.Value) (string, bool) {
	s, ok := v.Raw("the name of a host")
	if !ok {
		return "", false
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone("").String(), true
	}
	if !hostNames.MatchString(s) {
		v.Problem("want the name of a host such as router1.example.net, or an address, without a port, got %q", keys.Excerpt(s))
		return "", false
	}
	return s, true
}

// hostNames are those that a request can be for.
var hostNames = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?$`)

// hookSecret reads secret_file, or the unit's credential where that is missing
// or root's alone. No error repeats what was found, nor what secret_file says.
func (l *loader) hookSecret(file keys.Value) Secret {
	path := l.credential(HookCredentialName)
	if file.Present() {
		s, ok := file.Raw("a path")
		if !ok {
			return ""
		}
		if !filepath.IsAbs(s) {
			file.Problem("want the absolute path of a file that holds the secret")
			return ""
		}
		path = l.orCredential(s, HookCredentialName)
	} else if !l.hasCredential(HookCredentialName) {
		file.Problem("missing; want the absolute path of a file that holds the secret (or start with the systemd credential %s)", HookCredentialName)
		return ""
	}
	s := l.readSecret(file, path, "the secret")
	if s != "" && len(s) < minSecret {
		file.Problem("the secret has fewer than %d characters; make one with: openssl rand -hex 32", minSecret)
		return ""
	}
	return s
}
