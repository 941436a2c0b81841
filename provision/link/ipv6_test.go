package link

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestForwardsIPv6(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		want  bool
	}{
		"no IPv6":            {},
		"off":                {files: map[string]string{"all/forwarding": "0\n", "eth0/forwarding": "1\n"}}, // the kernel asks all
		"on":                 {files: map[string]string{"all/forwarding": "1\n"}, want: true},
		"of one interface":   {files: map[string]string{"all/forwarding": "0\n", "all/force_forwarding": "0\n", "eth1/force_forwarding": "1\n"}, want: true},
		"of no interface":    {files: map[string]string{"all/forwarding": "0\n", "all/force_forwarding": "0\n", "eth1/force_forwarding": "0\n"}},
		"what is not a word": {files: map[string]string{"all/forwarding": ""}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for path, text := range tt.files {
				path = filepath.Join(dir, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			}
			assert.Equal(t, tt.want, forwardsIPv6(dir))
		})
	}
}
