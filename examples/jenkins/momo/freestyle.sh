# "Execute shell" of a freestyle job. Archive baton-plan.txt with "Archive the artifacts".
# Build Environment: "Use secret text(s)", variable BATON_TOKEN. Advanced: exit code to set build unstable: 3.
export BATON_SERVER="${BATON_SERVER:-https://deploy.example.com:7070}"
(cd backend && ./gradlew clean build)
baton lint
baton plan momo --version "$GIT_COMMIT" > baton-plan.txt
exec baton deploy momo --version "$GIT_COMMIT"
