package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A cluster for tests is thrown away within days; a certificate that outlives it is of no use to anybody.
const validFor = 30 * 24 * time.Hour

// makeCerts writes what the parts of a cluster prove themselves with: one authority, the certificates it signed, the key
// that service accounts' tokens are signed with, and a kubeconfig for each client.
//
//	certs -out DIR -server URL -server-address IP[,IP...] -node NAME=IP[,NAME=IP...]
//
// Names and groups are those that Kubernetes' own roles are bound to:
// https://kubernetes.io/docs/setup/best-practices/certificates/
func makeCerts(args []string) error {
	flags := flag.NewFlagSet("certs", flag.ExitOnError)
	out := flags.String("out", "", "folder to write to")
	server := flags.String("server", "", "the API server's address in kubeconfigs")
	addresses := flags.String("server-address", "", "IP addresses that the API server answers at")
	nodes := flags.String("node", "", "the nodes' names and addresses")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o700); err != nil {
		return err
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	folder := folder{path: *out, server: *server, authority: authority}
	if err := folder.write("ca.crt", pemOf("CERTIFICATE", authority.certificate.Raw)); err != nil {
		return err
	}

	if err := folder.serving("apiserver", strings.Split(*addresses, ","), "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"); err != nil {
		return err
	}
	// What the API server calls kubelets with. The group is allowed everything; a role for just this is bound to no group.
	if err := folder.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return err
	}
	clients := []struct{ file, user, group string }{
		{"admin", "cluster-admin", "system:masters"},
		{"kube-controller-manager", "system:kube-controller-manager", ""},
		{"kube-scheduler", "system:kube-scheduler", ""},
		{"kube-proxy", "system:kube-proxy", ""},
		{"kube-router", "davit:kube-router", ""},
	}
	for _, node := range strings.Split(*nodes, ",") {
		name, address, found := strings.Cut(node, "=")
		if !found {
			return fmt.Errorf("-node %q is not NAME=IP", node)
		}
		if err := folder.serving("kubelet-"+name, []string{address}, name); err != nil {
			return err
		}
		clients = append(clients, struct{ file, user, group string }{"kubelet-" + name, "system:node:" + name, "system:nodes"})
	}
	for _, each := range clients {
		if err := folder.kubeconfig(each.file, each.user, each.group); err != nil {
			return err
		}
	}
	return folder.serviceAccountKey()
}

// folder is where the files go, and what they are signed by.
type folder struct {
	path      string
	server    string
	authority *authority
}

func (f folder) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(f.path, name), content, 0o600)
}

// serving writes NAME.crt and NAME.key of a server that is reached by these addresses and names.
func (f folder) serving(file string, addresses []string, names ...string) error {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: file},
		DNSNames:    names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		ip := net.ParseIP(address)
		if ip == nil {
			return fmt.Errorf("%q is not an IP address", address)
		}
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	return f.pair(file, template)
}

// client writes NAME.crt and NAME.key of a client.
func (f folder) client(file, user, group string) error {
	return f.pair(file, clientTemplate(user, group))
}

func (f folder) pair(file string, template *x509.Certificate) error {
	certificate, key, err := f.authority.sign(template)
	if err != nil {
		return err
	}
	if err := f.write(file+".crt", certificate); err != nil {
		return err
	}
	return f.write(file+".key", key)
}

// kubeconfig writes NAME.kubeconfig, with everything in it, so that it can be copied anywhere.
func (f folder) kubeconfig(file, user, group string) error {
	certificate, key, err := f.authority.sign(clientTemplate(user, group))
	if err != nil {
		return err
	}
	const cluster = "davit-test"
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{
		Server:                   f.server,
		CertificateAuthorityData: pemOf("CERTIFICATE", f.authority.certificate.Raw),
	}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = cluster
	return clientcmd.WriteToFile(*config, filepath.Join(f.path, file+".kubeconfig"))
}

func (f folder) serviceAccountKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := f.write("service-accounts.pub", pemOf("PUBLIC KEY", public)); err != nil {
		return err
	}
	return f.write("service-accounts.key", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)))
}

// authority signs. Its key is never written, so nobody can make more certificates later.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "davit test cluster"},
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(validFor),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	return &authority{key: key, certificate: certificate}, err
}

// sign makes a new key and a certificate for it, both as PEM.
func (a *authority) sign(template *x509.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	template.NotBefore, template.NotAfter = a.certificate.NotBefore, a.certificate.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	rawKey, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pemOf("CERTIFICATE", raw), pemOf("EC PRIVATE KEY", rawKey), nil
}

func clientTemplate(user, group string) *x509.Certificate {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: user},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if group != "" {
		template.Subject.Organization = []string{group}
	}
	return template
}

func pemOf(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}
