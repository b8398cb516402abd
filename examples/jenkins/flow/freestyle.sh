# "Execute shell" of a freestyle job with the parameters FLOW, SERVICE, HOSTS, INSTANCES and ARTIFACT.
# Build Environment: "Use secret text(s)", variable BATON_TOKEN. Advanced: exit code to set build unstable: 3.
export BATON_SERVER="${BATON_SERVER:-https://deploy.example.com:7070}"
set -- "$FLOW" --service "$SERVICE" --hosts "$HOSTS" --wait=30m
[ -z "$INSTANCES" ] || set -- "$@" --instances "$INSTANCES"
[ -z "$ARTIFACT" ] || set -- "$@" --artifact "$ARTIFACT" --version "$BUILD_NUMBER"
exec baton run "$@"
