#!/usr/bin/env bash
# Makes the packages, installs the kvm command from them and runs it, and builds a program against the package of Kvm.Client.
# Usage: tests/packages.sh [folder for the packages]; default: packages
set -euo pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
mkdir -p "${1:-packages}"
packages=$(cd "${1:-packages}" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

dotnet pack Kvm.sln -c Release -o "$packages" --nologo -v q
ls "$packages"
# What other packages need is in the machine's cache by now: the build restored it. A cache of its own would remember older packages of the same version.
version=$(basename "$packages"/Kvm.Tool.*.nupkg .nupkg)
version=${version#Kvm.Tool.}
cache=${NUGET_PACKAGES:-$HOME/.nuget/packages}
rm -rf "$cache"/kvm.{abi,core,emulator,arch.x86,arch.x86.vmx,arch.x86.svm,client,vmm,conformance,tool}/"$version"
printf '<configuration><packageSources><clear/><add key="local" value="%s"/></packageSources></configuration>\n' "$packages" > "$scratch/nuget.config"
dotnet tool install Kvm.Tool --tool-path "$scratch/tool" --version "$version" --configfile "$scratch/nuget.config"
"$scratch/tool/kvm" doctor
"$scratch/tool/kvm" --help > /dev/null

mkdir "$scratch/hello"
cp samples/Hello/Program.cs "$scratch/hello/"
cp "$scratch/nuget.config" "$scratch/hello/nuget.config"
cat > "$scratch/hello/hello.csproj" << EOF
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework><ImplicitUsings>enable</ImplicitUsings><NoWarn>NU1603;NU1801</NoWarn></PropertyGroup>
  <ItemGroup><PackageReference Include="Kvm.Client" Version="$version" /></ItemGroup>
</Project>
EOF
(cd "$scratch/hello" && dotnet run) | grep 'the guest says 4'
for library in Abi Core Emulator Arch.X86 Arch.X86.Vmx Arch.X86.Svm Client; do
    ls "$cache/kvm.${library,,}/$version/lib/net10.0/Kvm.$library.xml" > /dev/null # the documentation
done
echo "packages are good"
