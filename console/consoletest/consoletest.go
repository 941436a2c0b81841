// Package consoletest is what an ERP does to the console, for tests.
package consoletest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
)

// SendHint sends a hint about a customer, signed as docs/erp-hooks.md says, by hand.
func SendHint(t testing.TB, client *http.Client, url, secret string, customer int64, nonce int) {
	t.Helper()
	body := fmt.Sprintf(`{"customer_id":%d,"nonce":%d}`, customer, nonce)
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = io.WriteString(mac, stamp+"."+body)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+console.HookPath, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set(console.HookTimestampHeader, stamp)
	r.Header.Set(console.HookSignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := client.Do(r)
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
}
