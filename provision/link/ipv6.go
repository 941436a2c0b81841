package link

import (
	"os"
	"path/filepath"
	"strings"
)

// ipv6Conf has a directory for each interface, and one for all.
const ipv6Conf = "/proc/sys/net/ipv6/conf"

// ForwardsIPv6 reports whether this host forwards IPv6: from any interface, or, since
// Linux 6.17, from some. What cannot be read forwards nothing.
func ForwardsIPv6() bool { return forwardsIPv6(ipv6Conf) }

func forwardsIPv6(conf string) bool {
	on := func(path string) bool {
		b, err := os.ReadFile(path)
		value := strings.TrimSpace(string(b))
		return err == nil && value != "" && value != "0"
	}
	if on(filepath.Join(conf, "all", "forwarding")) {
		return true
	}
	if _, err := os.Stat(filepath.Join(conf, "all", "force_forwarding")); err != nil {
		return false
	}
	interfaces, err := os.ReadDir(conf)
	if err != nil {
		return false
	}
	for _, dir := range interfaces {
		if on(filepath.Join(conf, dir.Name(), "force_forwarding")) {
			return true
		}
	}
	return false
}
